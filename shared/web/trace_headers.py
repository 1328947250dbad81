"""The fields that link a log line to its request's trace in Cloud Logging."""

from __future__ import annotations

import re

# W3C Trace Context, section 3.2: ids of zeros only are none; a later version may add parts.
_TRACEPARENT = re.compile(
    r"(?:00(?!.{54})|(?!00|ff)[0-9a-f]{2})"
    r"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
# Google's older form, whose span is a decimal number.
_CLOUD_TRACE = re.compile(r"([0-9a-f]{32})(?:/([0-9]{1,20}))?(?:;o=([01]))?")


def fields(
    traceparent: str | None, cloud_trace: str | None, project: str | None
) -> dict[str, object]:
    """Give the fields for the headers `traceparent` and `X-Cloud-Trace-Context`; the first wins.

    Without a project's id the trace has its own name only, as elsewhere than on Google Cloud.
    """
    span: str | None
    if match := _TRACEPARENT.fullmatch(traceparent or ""):
        trace, span, sampled = match[1], match[2], bool(int(match[3], 16) & 1)
    elif match := _CLOUD_TRACE.fullmatch(cloud_trace or ""):
        trace, sampled = match[1], match[3] == "1"
        span = f"{int(match[2]) & 0xFFFF_FFFF_FFFF_FFFF:016x}" if match[2] else None
    else:
        return {}
    return {
        "logging.googleapis.com/trace": f"projects/{project}/traces/{trace}" if project else trace,
        "logging.googleapis.com/spanId": span,
        "logging.googleapis.com/trace_sampled": sampled,
    }
