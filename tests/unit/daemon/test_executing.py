"""What a task executes: its arguments and its environment."""

import os

import pytest

from p2pq.daemon.executing import command_line, for_libraries, own_environment
from p2pq.errors import Reject
from p2pq.model.params import ARGV_CHARS_MAX
from p2pq.model.sources import Source
from p2pq.wire.body import CommandsBody


def body(*words, values=(), **fields):
    sources = (Source(tuple(values)),) if values else ()
    return CommandsBody(words=words, sources=sources, cwd="/", **fields)


def test_a_line_that_needs_no_shell_gets_none_but_has_it_in_reserve():
    job = body("/bin/echo", "{}", "{#}", values=("a", "b"))
    assert command_line(job, 1) == (("/bin/echo", "b", "2"), ("/bin/sh", "-c", "/bin/echo b 2"))


def test_a_line_for_a_shell_is_given_to_one():
    assert command_line(body("echo", "{}", "|", "wc", values=("a b",)), 0) == (("/bin/sh", "-c", "echo 'a b' | wc"), ())


def test_without_words_the_values_are_the_lines():
    assert command_line(body(values=("/bin/true", "exit 3")), 1)[0] == ("/bin/sh", "-c", "exit 3")


def test_arguments_are_left_as_they_are_where_no_shell_is_wanted():
    assert command_line(body("ls", "{}", "*", shell=False), 0) == (("ls", "{}", "*"), ())


def test_functions_that_the_users_shell_exports_come_first():
    job = body("/bin/echo", values=("a",), environment=b"BASH_FUNC_x%%=() { :; }\0")
    assert command_line(job, 0)[0][0] == "/bin/sh"


def test_a_line_that_is_too_long_is_refused():
    with pytest.raises(Reject, match="longer than"):
        command_line(body("{}" * 100, values=("x" * (ARGV_CHARS_MAX // 50),)), 0)


def test_the_environment_is_the_users_own():
    raw = b"A=1\0B=x=y\0EMPTY=\0\xff=\xfe\0junk\0=nothing\0"
    found = own_environment(body("true", environment=raw))
    assert found == {"A": "1", "B": "x=y", "EMPTY": "", os.fsdecode(b"\xff"): os.fsdecode(b"\xfe")}


def test_libraries_are_told_how_many_cpus_they_may_use():
    assert for_libraries(3)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("environment", "shell"),
    [
        (b"A=1\0SHELL={bin}/bash\0", "{bin}/bash"),
        (b"SHELL={bin}/zsh\0PARALLEL_SHELL={bin}/bash\0", "{bin}/bash"),
        (b"SHELL={bin}/fish\0", "/bin/sh"),
        (b"SHELL={bin}/dash\0", "/bin/sh"),
        (b"SHELL=bash\0", "/bin/sh"),
        (b"SHELL\0junk\0", "/bin/sh"),
        (b"", "/bin/sh"),
    ],
)
def test_the_users_own_shell_reads_lines_if_it_is_there_and_reads_them_as_sh_does(tmp_path, environment, shell):
    for name in ("bash", "fish", "zsh"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "dash").write_text("")
    found = environment.replace(b"{bin}", os.fsencode(tmp_path))
    job = body("f", "{}", "&&", "g", values=("a b",), environment=found)
    assert command_line(job, 0) == ((shell.replace("{bin}", str(tmp_path)), "-c", "f 'a b' && g"), ())
    assert command_line(body("/bin/true", environment=found), 0)[1][0] == shell.replace("{bin}", str(tmp_path))
