"""Seeds of every profile keep every promise, and equal seeds are equal runs."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checking.violation import CHECKERS, ViolationError
from tests.sim.campaign import REPORTS_MAX, Campaign, Failure, Tally, conduct
from tests.sim.faults import FAULTS
from tests.sim.marks import MARKS
from tests.sim.minimise import minimise
from tests.sim.profile import PROFILES, Profile
from tests.sim.run import Report, run
from tests.sim.schedule import Fault, decode, draw, encode
from tests.sim.timeline import PIXELS_A_SECOND, draw_timeline
from tests.sim.workloads import WORKLOADS

SEEDS = range(1, 6)
DIGEST_OF = "from tests.sim.run import run; from tests.sim.profile import PROFILES; \
import sys; print(run(int(sys.argv[2]), PROFILES[sys.argv[1]], messages=True).digest)"


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_names_what_there_is(name: str) -> None:
    profile = PROFILES[name]
    assert profile.faults.keys() <= FAULTS.keys()
    assert profile.workloads.keys() <= WORKLOADS.keys()
    assert profile.waiting_for.keys() <= MARKS.keys()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PROFILES)
def test_no_promise_is_broken(name: str, seed: int) -> None:
    report = run(seed, PROFILES[name])
    if report.violation is not None:
        raise report.violation
    assert report.history.operations


def test_members_that_lost_what_they_promised_replace_themselves() -> None:
    """Through the opening of production, and without the operator of the other runs."""
    report = run(104, PROFILES["disk"])
    assert report.violation is None
    assert report.marks["member replaced itself"] == 1
    assert report.marks["member replaced"] == 0


@pytest.mark.parametrize("name", PROFILES)
def test_equal_seeds_are_equal_runs_byte_for_byte(name: str) -> None:
    """In this process, and in others whose dictionaries and sets hash otherwise."""
    digests = [run(3, PROFILES[name], messages=True).digest]
    for hash_seed in ("1", "2"):
        process = subprocess.run(
            [sys.executable, "-c", DIGEST_OF, name, "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(process.stdout.strip())
    assert len(set(digests)) == 1, digests


def test_a_schedule_survives_its_json() -> None:
    faults = draw(5, PROFILES["default"])
    assert len(faults) > 3
    assert decode(encode(faults)) == faults


# --- making a failure smaller ---------------------------------------------------------------------


def _fails_with(numbers: set[int], checker: str = "durability") -> object:
    """A run that fails when all of these faults are in it; otherwise in another way."""

    def run_once(seed: int, profile: Profile, faults: list[Fault] | None) -> Report:
        schedule = draw(seed, profile) if faults is None else faults
        report = EMPTY
        report = Report(**{name: getattr(report, name) for name in report.__struct_fields__})
        report.faults = schedule
        found = numbers <= {fault.number for fault in schedule}
        report.violation = ViolationError(checker if found else "liveness", "planted")
        return report

    return run_once


EMPTY = run(1, Profile(name="none", sizes=(1,), seconds=0.1, faults={}, workloads={}))


@pytest.mark.parametrize("numbers", [{3}, {0, 7}, {1, 2, 5, 9}])
def test_the_minimiser_leaves_just_what_it_takes(numbers: set[int]) -> None:
    profile = Profile(
        name="many", sizes=(1,), seconds=30.0, faults={"crash": 1}, workloads={"register": 1}
    )
    assert len(draw(1, profile)) > 10
    smaller = minimise(
        1,
        profile,
        seconds_max=60.0,
        progress=lambda _: None,
        run_once=_fails_with(numbers),  # type: ignore[arg-type]
    )
    assert smaller is not None
    assert {fault.number for fault in smaller.report.faults} == numbers


def test_the_minimiser_has_nothing_to_do_where_nothing_fails() -> None:
    quiet = Profile(name="quiet", sizes=(1,), seconds=0.1, faults={}, workloads={})
    assert minimise(1, quiet, seconds_max=1.0, progress=lambda _: None) is None


# --- what people see ------------------------------------------------------------------------------


def test_a_timeline_shows_members_faults_calls_and_the_verdict() -> None:
    report = run(3, PROFILES["default"], messages=True)
    report.violation = ViolationError("durability", "planted <here>")
    page = draw_timeline(report)
    assert page.count('class="faults"') == len(report.struck)
    assert page.count('class="fault-name"') == len(report.struck)
    assert page.count("<title>client ") == len(report.history.operations)
    assert 'class="leader"' in page
    assert 'class="message"' in page
    assert "planted &lt;here&gt;" in page
    # The legend has small drawings too: switches and zoom are to work on the large one.
    assert 'querySelector(".scroll > svg")' in page
    assert 'querySelector("svg")' not in page
    # One file that needs nothing else.
    assert "src=" not in page
    assert "href=" not in page


def test_a_timeline_shows_how_long_a_process_stood_still() -> None:
    faults = [Fault(0, 2.0, "pause", 0, 0.5), Fault(1, 2.5, "crash", 0, 0.1)]
    quiet = Profile(name="quiet", sizes=(3,), seconds=8.0, faults={}, workloads={})
    report = run(1, quiet, faults)
    paused = [event for event in report.events if event.kind == "pause"]
    assert len(paused) == 1
    page = draw_timeline(report)
    assert page.count(f"<title>SIGSTOP, from {paused[0].at:.6f} s</title>") == 1
    # A crash ends it: what comes afterwards is another process.
    ended = next(each for each in report.events if each.kind == "crash")
    width = (ended.at - paused[0].at) * PIXELS_A_SECOND
    bar = re.search(r'<rect class="paused" [^>]*width="([\d.]+)" height="18"><title>', page)
    assert bar is not None
    assert abs(float(bar[1]) - width) < 1


def test_a_report_names_what_was_never_reached_and_how_to_replay() -> None:
    failure = Failure("default", 7, "durability", "durability: planted")
    tally = Tally(2, 40.0, 1.0, {"crash": 3}, {"ok": 5}, {"leader elected": 2})
    campaign = Campaign("abc", {"default": tally}, [failure], 1.0)
    text = "\n".join(campaign.lines())
    assert "2 leader elected" in text
    missed = text.split("never reached: ")[1].splitlines()[0]
    assert "log truncated" in missed
    assert "leader elected" not in missed
    assert "FAILED default 7 at abc: durability: planted" in text
    assert "-m tests.sim replay --profile default 7" in text
    assert text.endswith("1 failures")


def test_a_campaign_runs_every_seed_once_and_stops_by_itself() -> None:
    campaign = conduct(
        ["default"], seeds=3, first=5, seconds_max=60.0, processes=1, progress=lambda _: None
    )
    assert campaign.seeds == 3
    none = conduct(
        ["default"], seeds=3, first=5, seconds_max=-1.0, processes=1, progress=lambda _: None
    )
    assert none.seeds == 0


def test_reports_of_the_last_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.sim.campaign.REPORT_DIRECTORY", tmp_path)
    for first in range(REPORTS_MAX + 2):
        path = Campaign("abc", first=first).save()
        # Two files of one moment have no order.
        os.utime(path, (first, first))
    kept = {report.name for report in tmp_path.iterdir()}
    last = range(2, REPORTS_MAX + 2)
    assert kept == {f"report-abc-from-{first}.json" for first in last}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_in_which_time_stands_still_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spins(*_: object) -> None:
        while True:
            pass

    monkeypatch.setitem(WORKLOADS, "register", spins)
    profile = Profile(name="spins", sizes=(1,), faults={}, workloads={"register": 1})
    report = run(1, profile, real_seconds_max=3.0)
    assert report.violation is not None
    assert report.violation.checker == "liveness"
    assert "no end after" in str(report.violation)
    # It was torn out of the middle of its tasks; let them go here, and nowhere else.
    gc.collect()


def _rows(heading: str) -> dict[str, str]:
    """The table below a heading of the documentation: first column to second."""
    text = Path("docs/testing.md").read_text().split(f"{heading}\n", 1)[1]
    lines = [line for line in text.split("\n#")[0].splitlines() if line.startswith("| ")]
    return dict(line.strip("| ").split(" | ", 1) for line in lines[1:])


def test_the_documentation_has_every_fault_and_every_mark() -> None:
    faults = {name: (kind.__doc__ or "").split("\n\n")[0] for name, kind in FAULTS.items()}
    told = {name: " ".join(words.split()) for name, words in faults.items()}
    assert _rows("### The faults") == told
    assert _rows("### The marks") == MARKS
    assert _rows("### The profiles").keys() == PROFILES.keys()


def test_the_documentation_names_every_promise() -> None:
    text = Path("docs/testing.md").read_text()
    for name, promise in CHECKERS.items():
        assert f"| {name} | {promise} |" in text
