"""The benchmark: pop3gw beside its peers (docs/performance.md says how it measures). Not part of the package."""
