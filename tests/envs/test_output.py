import io
import os
import sys

import pytest

from envs.output import SafeStream, output_is_read, safe_output

TEXT = "64×64, γ 0.95, Δ\n"


SHOWN = {
    "ascii": b"64?64, ? 0.95, ?\n",
    "latin-1": b"64\xd764, ? 0.95, ?\n",
    "utf-8": TEXT.encode(),
}


@pytest.mark.parametrize(("encoding", "shown"), SHOWN.items())
def test_letters_that_an_encoding_lacks(encoding: str, shown: bytes):
    written = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(written, encoding))
    print(TEXT, end="", file=stream, flush=True)
    assert written.getvalue() == shown


def test_no_stream(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with safe_output():
        print(TEXT, flush=True)
        assert not sys.stdout.isatty() and output_is_read()
    assert sys.stdout is None


def test_a_pipe_whose_reader_goes_away(monkeypatch):
    """It is noticed without a write; what is printed then is lost, and nothing fails later."""
    reader, writer = os.pipe()
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with safe_output(), safe_output():
            print("read", flush=True)
            assert output_is_read()
            os.close(reader)
            assert not output_is_read()
            for _ in range(2):
                print("lost" * 5000)
                print("lost", flush=True)
            assert isinstance(sys.stdout.error, BrokenPipeError) and not output_is_read()
        pipe.write("as the process ends")


def test_a_full_disk(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        with safe_output():
            print("lost", file=sys.stderr, flush=True)
            assert sys.stderr.error.strerror == "No space left on device" and output_is_read()


def test_a_stream_of_python(capsys):
    with safe_output():
        print(TEXT, end="")
        assert output_is_read()
    assert capsys.readouterr().out == TEXT
