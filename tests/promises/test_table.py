"""The table itself: every promise has its file, and every attack it names exists."""
import re
from pathlib import Path

from table import HERE, outcomes, promises, table

TESTS = Path(HERE).parent


def test_every_promise_has_a_file_with_its_attack():
    found = promises()
    assert [p["number"] for p in found] == [*range(1, 31)]
    assert all(p["promise"].endswith(".") and p["attack"].startswith("Attack: ") for p in found)


def test_attacks_that_stand_elsewhere_exist():
    missing = []
    for p in promises():
        for name in p["also"]:
            file, function = name.split("::")
            if not re.search(rf"^def {function}\(", (TESTS / file).read_text(encoding="utf-8"), re.M): missing.append(f"{p['file']}: {name}")
    assert not missing, missing


def test_what_fails_is_not_counted_as_survived(tmp_path):
    report = tmp_path / "r.xml"
    report.write_text('<testsuites><testsuite><testcase classname="tests.promises.test_01_x" name="a[1]"><properties><property name="attacks" value="7"/></properties></testcase>'
                      '<testcase classname="tests.promises.test_01_x" name="b"><failure/></testcase><testcase classname="tests.test_y" name="c"/>'
                      '<testcase classname="tests.test_y" name="other"/>'
                      '<testcase classname="tests.promises.test_01_x" name="d"><skipped type="pytest.xfail"/></testcase></testsuite></testsuites>')
    (line,) = table([dict(number=1, promise="p.", attack="a", file="test_01_x.py", also=["test_y.py::c"])], list(outcomes(report)))
    assert (line["tests"], line["tried"], line["survived"]) == (4, 10, 8)
