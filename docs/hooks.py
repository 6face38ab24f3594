"""Hooks of the documentation site: pages from files outside docs/, links between all of them, and formulas as MathML.

Everything is written once, for GitHub, with links between files of the repository. README.md is the front page; each
notebook becomes a page with the outputs that it holds, and is never run.
"""

import base64
import html
import json
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
RENAMED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
DIAGRAMS = "data/diagrams/"
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")
MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
WIDGET = "application/vnd.jupyter.widget-view+json"
PLACE_OF_WIDGET = "*Here stands a widget, which moves where the notebook runs: in JupyterLab or in Colab.*"


def on_files(files, config):
    """Adds the pages whose files lie outside docs/."""
    for name, page in RENAMED.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for path in sorted((ROOT / DIAGRAMS).glob("*.svg")):
        files.append(File.generated(config, f"diagrams/{path.name}", content=path.read_bytes()))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, pictures = _page_and_pictures(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links between files of the repository into links between pages, or to GitHub for files without a page."""
    blob = f"{config.repo_url}/blob/main/"
    here = posixpath.dirname(page.file.src_uri)
    there = posixpath.dirname(_file_of(page.file.src_uri))

    def moved(match):
        before, link, anchor = match[1], match[2], match[3] or ""
        path = link.removeprefix(blob) if link.startswith(blob) else posixpath.normpath(posixpath.join(there, link))
        if "://" in path or not (ROOT / path).exists():
            return match[0]
        target = _page_of(path)
        return f"{before}{posixpath.relpath(target, here or '.') if target else blob + path}{anchor})"

    return LINK.sub(moved, markdown)


def on_page_content(content, page, config, files):
    """Turns formulas into MathML, which browsers show without a script."""
    return MATH.sub(lambda m: convert(html.unescape(m[2]), display="block" if m[1] == "div" else "inline"), content)


def _page_of(path):
    """The page or asset that a file of the repository becomes; None if it is not on the site."""
    if path in RENAMED:
        return RENAMED[path]
    if path.startswith("notebooks/"):
        return f"{path.removesuffix('.ipynb')}.md"
    if path.startswith(DIAGRAMS):
        return path.removeprefix("data/")
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def _file_of(page):
    """The file of the repository that a page comes from."""
    return {new: old for old, new in RENAMED.items()}.get(
        page, page if page.startswith("notebooks/") else f"docs/{page}"
    )


def _page_and_pictures(path):
    """A notebook as Markdown, and its pictures by their names."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    # Badges come first, so that MkDocs does not find the title itself.
    title = re.search(r"^# (.+)", "".join(cells[0]["source"]), re.MULTILINE)[1]
    parts, pictures = [f"---\ntitle: {json.dumps(title)}\n---"], {}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"````python\n{source}\n````")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if WIDGET in data:
                parts.append(PLACE_OF_WIDGET)
            elif "image/svg+xml" in data:
                name = f"{path.stem}/{len(pictures):02}.svg"
                pictures[name] = "".join(data["image/svg+xml"])
                parts.append(f"![{output['metadata'].get('image/svg+xml', {}).get('alt', '')}]({name})")
            elif "image/png" in data:
                name = f"{path.stem}/{len(pictures):02}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![]({name})")
            elif "text/markdown" in data:
                parts.append("".join(data["text/markdown"]))
            else:
                parts.append(f"````{{ .text .output }}\n{''.join(data['text/plain']).rstrip()}\n````")
    return "\n\n".join(parts) + "\n", pictures
