"""The programs, called in this process."""

from click.testing import CliRunner, Result

from larq_rep_cli import lce


def run(*args, program=lce.main) -> Result:
    result = CliRunner().invoke(program, [str(arg) for arg in args], catch_exceptions=False)
    # An exception that no command expects is a failure of the test.
    assert result.exit_code != 3, result.stderr
    return result


def refused(*args) -> str:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    return result.stderr
