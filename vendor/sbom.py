"""Write the wheel's bill of materials, CycloneDX 1.6 in JSON, which lists the compiled code that is not toynn's own.

python vendor/sbom.py 0.1.0 toynn.cdx.json        (CMake runs it; the file is in dist-info/sboms of the wheel, PEP 770)

All data about ggml comes from vendor/ggml.lock. The document contains no time and no random serial number, so the same
source gives the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from populate import Lock, pairs_of

VENDOR = Path(__file__).resolve().parent

MIT = [{"license": {"id": "MIT"}}]
# Parts of ggml that are compiled in and have other copyright holders. NOTICE lists them too.
PARTS = (
    ("ggml-cpu/llamafile", "Copyright 2024 Mozilla Foundation"),
    ("ggml-cpu/ops.cpp (YaRN)", "Copyright (c) 2023 Jeffrey Quesnelle and Bowen Peng"),
)


def bill(version: str, lock_file: Path) -> dict[str, object]:
    """Return the document for this version of toynn and the version of ggml in the lock file."""
    lock, pairs = Lock.read(lock_file), pairs_of(lock_file)
    toynn, ggml = f"pkg:pypi/toynn@{version}", f"pkg:github/ggml-org/ggml@{pairs['ggml_tag']}"
    source = {
        "type": "source-distribution",
        "url": f"pkg:pypi/{lock.package}@{lock.version}",
        "comment": f"{lock.sdist_name}: its folder ggml/, unmodified; linked statically, CPU backend only",
        "hashes": [{"alg": "SHA-256", "content": lock.sha256}],
    }
    parts = [{"type": "library", "name": name, "copyright": holder, "licenses": MIT} for name, holder in PARTS]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": toynn,
                "name": "toynn",
                "version": version,
                "purl": toynn,
                "licenses": MIT,
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": ggml,
                "name": "ggml",
                "version": pairs["ggml_version"],
                "purl": ggml,
                "copyright": "Copyright (c) 2023-2026 The ggml authors",
                "licenses": MIT,
                "externalReferences": [source],
                "components": parts,
            }
        ],
        "dependencies": [{"ref": toynn, "dependsOn": [ggml]}, {"ref": ggml}],
    }


def main(version: str, output: Path) -> None:
    text = json.dumps(bill(version, VENDOR / "ggml.lock"), indent=1)
    output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
