"""scikit-build-core, and then the wheel's members in one order.

What scikit-build-core puts into dist-info (licences, the bill of materials) stands in the wheel in the order in which
the file system lists it, which differs from one machine to another. Sorted, two builds of one source by the same tools
are the same bytes. Times and permissions it fixes itself: `wheel.reproducible`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from scikit_build_core import build as skbuild


def __getattr__(hook: str) -> Any:
    """The other hooks are scikit-build-core's; which there are depends on pyproject.toml."""
    return getattr(skbuild, hook)


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """The hook of PEP 517."""
    name = skbuild.build_wheel(wheel_directory, config_settings, metadata_directory)
    sort_members(Path(wheel_directory, name))
    return name


def sort_members(wheel: Path) -> None:
    """By name; dist-info after the package, its RECORD last, as the wheel format recommends. RECORD is sorted too."""
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
