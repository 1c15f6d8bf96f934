"""Arms that go wrong: one line, nothing half-written, no process left, finished arms are kept."""

import contextlib
import os
import pty
import re
import signal
import termios
import time

from tests.arms.toy_stage import OUTPUT, at_work, ended, left, start


def test_the_bar_of_a_stage_shows_how_many_arms_are_done(toy):
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    process = start(toy, "fine-1", "wait", stderr=end)
    os.close(end)
    at_work(toy, process)
    (toy.path / "wait").unlink()
    shown = ""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while part := os.read(terminal, 1024):
            shown += part.decode()
    os.close(terminal)
    assert process.wait() == 0
    assert re.search(r"toy: +50%\|.*\| 1/2 \[\d\d:\d\d<\d\d:\d\d, .*arm.*\]", shown), shown
    assert process.communicate()[0].startswith("toy@0 ")


def test_a_users_error_cancels_the_rest(toy):
    process = start(toy, "wait", "refuse", "fine-1")
    assert ended(process) == "error: the first\nerror: the second\n"
    assert (process.returncode, left(toy)) == (2, [])


def test_a_worker_that_is_killed_is_a_line_with_its_arm(toy):
    process = start(toy, "fine-1", "wait", "fine-2")
    os.kill(*at_work(toy, process), signal.SIGKILL)
    error = ended(process)
    assert error.startswith("error: toy@0: wait: its worker was killed; if memory ran out,")
    assert "set engine.workers below 2" in error
    assert (process.returncode, error.count("\n"), left(toy)) == (2, 1, [])


def test_ctrl_c_is_one_line(toy):
    process = start(toy, "wait-1", "wait-2")
    at_work(toy, process, 2)
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process) == "interrupted: nothing of this stage was written\n"
    assert (process.returncode, left(toy)) == (130, [])


def test_a_stage_that_is_killed_goes_on_from_what_had_finished(toy):
    done = toy.path / "done.txt"
    process = start(toy, "fine-1", "wait", "fine-2", "fine-3")
    at_work(toy, process)
    while not (toy.path / OUTPUT).with_name(".seed-0.arms").exists() or len(
        list((toy.path / OUTPUT).with_name(".seed-0.arms").glob("*/[0-9]"))
    ) < 3:  # fmt: skip
        time.sleep(0.01)
    process.kill()
    assert ended(process) == ""
    assert not (toy.path / OUTPUT).exists()

    (toy.path / "wait").unlink()
    process = start(toy, "fine-1", "wait", "fine-2", "fine-3")
    assert (ended(process), process.returncode) == ("", 0)
    assert sorted(done.read_text().split()) == ["fine-1", "fine-2", "fine-3", "wait"]
    found = {path.name: path.read_text() for path in (toy.path / OUTPUT).glob("*.txt")}
    assert found == {f"{name}.txt": name for name in done.read_text().split()}
    assert sorted(path.name for path in (toy.path / OUTPUT).parent.iterdir()) == [
        ".seed-0.key", "seed-0",
    ]  # fmt: skip
