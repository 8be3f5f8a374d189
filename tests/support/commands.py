"""The programs, called in this process."""

from click.testing import CliRunner, Result

from larq_rep_cli import lce


def run(*args, program=lce.main) -> Result:
    # As in a shell, an unexpected exception is a failure of the test, not an exit code.
    return CliRunner().invoke(program, [str(arg) for arg in args], catch_exceptions=False)


def refused(*args) -> str:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    return result.stderr
