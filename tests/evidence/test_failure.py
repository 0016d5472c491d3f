from mlwarden.evidence.failure import one_line


def test_foreign_text_becomes_one_short_printable_line() -> None:
    assert one_line("a\r\n\x1b[31mb\u2028 c" + "x" * 400, 20) == "a [31mb c" + "x" * 10 + "…"
