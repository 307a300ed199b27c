"""Build dist/: the source distribution, and the wheel from it.

    python .ci/package.py [URL]

URL is the address of the repository: then the metadata names it, and the README's pictures and links go there, since
a package index shows it by itself. Without, the README in the metadata has no pictures, and of such links the text.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^][]*)\]\((?!https?:|#)([^)]+)\)")


def main(url: str = "") -> None:
    url = url.rstrip("/")
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "murho")
        for name in filter(None, tracked):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
        readme, project = source / "README.md", source / "pyproject.toml"
        readme.write_text(standing_alone(readme.read_text(encoding="utf-8"), url), encoding="utf-8")
        if url:
            urls = f'\n[project.urls]\nRepository = "{url}"\nChangelog = "{url}/blob/HEAD/CHANGELOG.md"\n'
            project.write_text(project.read_text(encoding="utf-8") + urls, encoding="utf-8")
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        subprocess.run([sys.executable, "-m", "build", "--outdir", ROOT / "dist", source], check=True)


def standing_alone(readme: str, url: str) -> str:
    """A README without links relative to its folder."""

    def placed(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        if url:
            return f"{picture}[{text}]({url}/{'raw' if picture else 'blob'}/HEAD/{target})"
        return "" if picture else text

    return LINK.sub(placed, readme)


if __name__ == "__main__":
    main(*sys.argv[1:])
