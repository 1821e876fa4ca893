"""The scan for line numbers, against what ConfigObj itself reads."""

from __future__ import annotations

from configobj import ConfigObj
from hypothesis import given
from hypothesis import strategies as st

from pop3gw.scan import line_numbers

TEXT = """\
# a comment
top = 1

[ main ]   # another
"quoted key" = x
'other' = y
text = '''one
  [no section]
  no_key = 1
last'''
one_line = \"\"\"a\"\"\"
key=v # comment = no
[services]
  [["my service"]]
  listen = a:1, "[::]:2"
  [[two]]
  listen = b:1
[[[deep]]]
x = 1
[last]
""".splitlines()


def test_every_name_that_configobj_reads_has_its_line() -> None:
    found = line_numbers(TEXT)
    tree = ConfigObj(list(TEXT), interpolation=False)
    paths: set[tuple[str, ...]] = set()

    def walk(section: ConfigObj, path: tuple[str, ...]) -> None:
        paths.update((*path, key) for key in section)
        for name in section.sections:
            walk(section[name], (*path, name))

    walk(tree, ())
    assert set(found) == paths
    assert found["main", "quoted key"] == 5
    assert found["main", "key"] == 12
    assert found["services", "my service"] == 14
    assert found["services", "two", "listen"] == 17
    assert found["services", "two", "deep", "x"] == 19


def test_the_first_of_two_counts() -> None:
    assert line_numbers(["a = 1", "a = 2"]) == {("a",): 1}


@given(st.lists(st.text(alphabet="[]'\"=#a \n", max_size=12), max_size=12))
def test_no_text_breaks_it(lines: list[str]) -> None:
    assert all(1 <= number <= len(lines) for number in line_numbers(lines).values())
