"""Ready-made policies, each a worked example of the policy language."""
