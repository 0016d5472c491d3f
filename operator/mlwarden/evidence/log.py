"""What trivy says beside its report, which then looks clean: on standard error, and with exit code 0.

Its words are those of 0.72.0. A log is a poor interface; for what is read from it there is no other.
"""

import re
from collections.abc import Iterator

from mlwarden.evidence import process, report
from mlwarden.evidence.failure import one_line

_ALPINE = re.compile(r'\[alpine\] Detecting vulnerabilities\.\.\.\tos_version="([^"\n]*)" repository="([^"\n]*)"')
_ROOT_IO = re.compile(r"\.root\.io|-r\d007\d")
_ERROR = re.compile(r"^[^\t\n]*\t(?:ERROR|FATAL)\t(?:\[([^\]\n]*)\] ?)?(.*)$", re.MULTILINE)
_HARMLESS = frozenset({"misconfig", "dockerfile scanner", "checks-client"})
"""Who logs errors that are none: that embedded checks are used, that an image does not say how it was made (`Findings.configured`)."""


def of_system(errors: str) -> Iterator[str]:
    """Yields what is said of the operating system alone: true of every image that has it."""
    if "not on the EOL list" in errors:
        yield "trivy does not know this version of the operating system, and has no advisories for it"


def of_image(errors: str) -> Iterator[str]:
    """Yields what is said of this image alone."""
    if "type is not supported for vulnerability scanning" in errors:
        yield "trivy has no advisories for one kind of the packages in it"
    troubles = [match[2] for match in _ERROR.finditer(errors) if match[1] not in _HARMLESS]
    if troubles:
        yield f"trivy had trouble with it: {one_line(troubles[0], 120)}"
    if len(errors) >= process.STDERR_TAIL:
        yield "trivy said more about this image than is kept"


def all_in_report(found: report.Findings, errors: str) -> bool:
    """Whether what trivy went by is in its report. Two things are not.

    Alpine's advisories are those of the release in `etc/apk/repositories`, which may be another than the system's: only the log tells.
    Packages of two vendors (pkg/detector/ospkg/{rootio,seal}) change what is looked up for all other packages beside them.
    """
    if len(errors) >= process.STDERR_TAIL or any(package.system and _changes_others(package) for package in found.packages):
        return False
    looked = _ALPINE.findall(errors)
    if found.system.family != "alpine":
        return not looked
    return len(looked) == 1 and looked[0][1] in {"", looked[0][0]}


def _changes_others(package: report.Package) -> bool:
    seal = package.name.lower().startswith("seal-") or package.source.lower().startswith("seal-")
    return seal or bool(_ROOT_IO.search(f"{package.version}-{package.release}"))
