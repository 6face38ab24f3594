"""A JupyterLab, and a browser that opens notebooks in it.

Needs playwright (`pip install playwright`) and Chromium: its own (`playwright install chromium`) or one on the PATH.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab, and its folder."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", f"--ServerApp.root_dir={folder}",
         "--IdentityProvider.token=", "--ServerApp.password=", "--allow-root", "--ServerApp.port_retries=0"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api")
            break
        except OSError:
            time.sleep(0.5)
    yield address, folder
    server.terminate()
    server.wait(20)


@pytest.fixture(scope="module")
def open_notebook(request):
    """From the sources of cells, and options for the browser's page, to a page with a new notebook of these cells."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        try:
            browser = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {error}")
        # Not started where there is no browser.
        address, folder = request.getfixturevalue("lab")

        def open_notebook(*sources, **options):
            notebook = nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources],
                metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            )
            name = f"widgets_{len(list(folder.glob('*.ipynb')))}.ipynb"
            nbformat.write(notebook, folder / name)
            page = browser.new_page(**{"viewport": {"width": 1400, "height": 1800}} | options)
            page.goto(f"{address}/lab/tree/{name}?reset")
            page.wait_for_selector(".jp-CodeCell", timeout=60_000)
            page.wait_for_function(
                "!document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=\"unknown\"]')"
            )
            page.wait_for_timeout(3000)
            return page

        yield open_notebook
        browser.close()


@pytest.fixture(scope="session")
def run():
    """From a page and the number of a cell: runs it."""

    def run(page, cell):
        page.locator(".jp-CodeCell .cm-content").nth(cell).click()
        page.keyboard.press("Control+Enter")

    return run
