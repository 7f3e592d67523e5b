"""Build wheels with scikit-build-core, then sort the members of the wheel.

scikit-build-core writes the files of dist-info (licences, the bill of materials) in the order of the file system, which
differs between machines. With sorted members, two builds of the same source by the same tools have the same bytes. The
setting `wheel.reproducible` of scikit-build-core already fixes times and permissions.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from scikit_build_core import build as skbuild


def __getattr__(hook: str) -> Any:
    """Return any other hook of PEP 517 from scikit-build-core."""
    return getattr(skbuild, hook)


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Build a wheel with sorted members and return its name (a hook of PEP 517)."""
    name = skbuild.build_wheel(wheel_directory, config_settings, metadata_directory)
    sort_members(Path(wheel_directory, name))
    return name


def sort_members(wheel: Path) -> None:
    """Sort the members by name, dist-info after the package and RECORD last, as the wheel format recommends.

    The lines of RECORD are sorted too.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]

    def order(member: tuple[zipfile.ZipInfo, bytes]) -> tuple[bool, bool, str]:
        name = member[0].filename
        return name.endswith(".dist-info/RECORD"), ".dist-info/" in name, name

    with zipfile.ZipFile(wheel, "w") as archive:
        for was, data in sorted(members, key=order):
            is_record = was.filename.endswith(".dist-info/RECORD")
            info = zipfile.ZipInfo(was.filename, was.date_time)
            info.external_attr, info.compress_type = was.external_attr, zipfile.ZIP_DEFLATED
            archive.writestr(info, b"".join(sorted(data.splitlines(keepends=True))) if is_record else data)
