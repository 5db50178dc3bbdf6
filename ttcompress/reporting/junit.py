"""Writes the outcomes of a batch as a JUnit file, which CI systems show as test results.

Only elements and attributes that the schemas of both Ant and Jenkins know are used.
"""

from __future__ import annotations

from datetime import UTC, datetime
from platform import node
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ttcompress.reporting.report import limit_text
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome
from ttcompress.system.text import clean_for_xml


def junit(result: BatchResult) -> bytes:
    """One test case for each job: a broken limit is a failure, a job that failed an error."""
    root = Element("testsuites")
    statuses = [outcome.status for outcome in result.outcomes]
    suite = SubElement(
        root,
        "testsuite",
        package="ttcompress",
        id="0",
        name=clean_for_xml(result.manifest),
        timestamp=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname=clean_for_xml(node()) or "localhost",
        tests=str(len(statuses)),
        failures=str(statuses.count("limit broken")),
        errors=str(statuses.count("failed")),
        time=f"{result.seconds:.3f}",
    )
    SubElement(suite, "properties")
    for outcome in result.outcomes:
        _add_case(suite, outcome)
    SubElement(suite, "system-out")
    SubElement(suite, "system-err")
    indent(root)
    written: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _add_case(suite: Element, outcome: Outcome) -> None:
    names = {"classname": clean_for_xml(outcome.model), "name": clean_for_xml(outcome.recipe)}
    case = SubElement(suite, "testcase", names, time=f"{outcome.seconds:.3f}")
    if outcome.error:
        first = clean_for_xml(outcome.error.splitlines()[0])
        error = SubElement(case, "error", type=outcome.kind, message=first)
        error.text = clean_for_xml(outcome.error)
    elif outcome.status == "limit broken":
        broken = [limit for limit in outcome.limits if not limit["ok"]]
        text = "\n".join(map(limit_text, broken))
        kinds = " ".join(limit["name"] for limit in broken)
        failure = SubElement(case, "failure", type=kinds, message=text.splitlines()[0])
        failure.text = text
