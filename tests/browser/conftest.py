"""A JupyterLab, and a browser that opens notebooks in it.

Needs playwright (`pip install playwright`) and Chromium: its own (`playwright install chromium`) or one on the PATH.
"""

import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab, and its folder."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # With settings of its own: the reader's neither matter nor change. No news lie on top of the page.
    settings = tmp_path_factory.mktemp("settings")
    news = settings / "lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(settings)}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", f"--ServerApp.root_dir={folder}",
         "--IdentityProvider.token=", "--ServerApp.password=", "--allow-root", "--ServerApp.port_retries=0"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
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
def open_file(request):
    """From a notebook, its name and options for the browser's page, to a page with this notebook."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        try:
            browser = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            # Its first line; the others are a log.
            pytest.skip(f"no Chromium that starts, see CONTRIBUTING.md: {str(error).splitlines()[0]}")
        # Not started where there is no browser.
        address, folder = request.getfixturevalue("lab")

        def open_file(notebook, name, **options):
            # Without it, JupyterLab would ask for a kernel.
            notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(notebook, folder / name)
            page = browser.new_page(**{"viewport": {"width": 1400, "height": 1800}} | options)
            page.goto(f"{address}/lab/tree/{name}?reset")
            page.wait_for_selector(".jp-CodeCell", timeout=60_000)
            page.wait_for_function(
                "!document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=\"unknown\"]')"
            )
            page.wait_for_timeout(3000)
            return page

        yield open_file
        browser.close()


@pytest.fixture(scope="module")
def open_notebook(open_file):
    """From the sources of cells, and options for the browser's page, to a page with a new notebook of these cells."""
    count = itertools.count()

    def open_notebook(*sources, **options):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources])
        return open_file(notebook, f"widgets_{next(count)}.ipynb", **options)

    return open_notebook


@pytest.fixture(scope="session")
def choose():
    """From a page and names of entries in the menu: opens one after the other, and chooses the last."""

    def choose(page, *names):
        for name in names:
            page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel").get_by_text(name, exact=True).click()

    return choose


@pytest.fixture(scope="session")
def run():
    """From a page and the number of a cell: runs it."""

    def run(page, cell):
        page.locator(".jp-CodeCell .cm-content").nth(cell).click()
        page.keyboard.press("Control+Enter")

    return run
