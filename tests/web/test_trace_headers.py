"""How a line of the log is tied to a trace, by the forms in which its id arrives."""

from __future__ import annotations

import pytest

from shared.web import trace_headers

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAME = "logging.googleapis.com/"


def _fields(trace: str, span: str | None, *, sampled: bool) -> dict[str, object]:
    return {f"{NAME}trace": trace, f"{NAME}spanId": span, f"{NAME}trace_sampled": sampled}


@pytest.mark.parametrize(
    ("traceparent", "cloud_trace", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", None, _fields(TRACE, SPAN, sampled=True)),
        (f"00-{TRACE}-{SPAN}-00", f"{'f' * 32}/1;o=1", _fields(TRACE, SPAN, sampled=False)),
        (f"01-{TRACE}-{SPAN}-03-later", None, _fields(TRACE, SPAN, sampled=True)),
        (None, f"{TRACE}/{int(SPAN, 16)};o=1", _fields(TRACE, SPAN, sampled=True)),
        (None, f"{TRACE}/7", _fields(TRACE, "0000000000000007", sampled=False)),
        (None, TRACE, _fields(TRACE, None, sampled=False)),
        (f"ff-{TRACE}-{SPAN}-01", TRACE, _fields(TRACE, None, sampled=False)),
        (f"00-{TRACE.upper()}-{SPAN}-01", None, {}),
        (f"00-{TRACE}-{SPAN}-01-later", None, {}),
        (f"00-{'0' * 32}-{SPAN}-01", None, {}),
        (f"00-{TRACE}-{'0' * 16}-01", None, {}),
        ("00-x", "x/1;o=1", {}),
        (f"00-{TRACE}-{SPAN}-01\n", None, {}),
        (None, None, {}),
    ],
)
def test_the_trace_context_is_read_as_w3c_and_google_write_it(
    traceparent: str | None, cloud_trace: str | None, expected: dict[str, object]
) -> None:
    assert trace_headers.fields(traceparent, cloud_trace, None) == expected


def test_with_a_project_the_trace_has_the_name_that_cloud_logging_links() -> None:
    found = trace_headers.fields(f"00-{TRACE}-{SPAN}-01", None, "my-project")
    assert found[f"{NAME}trace"] == f"projects/my-project/traces/{TRACE}"
