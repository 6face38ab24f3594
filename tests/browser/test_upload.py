"""A picture of the reader's own, chosen by the browser's dialogue: the next cell sees it."""

from PIL import Image

UPLOAD = """
import smoothnb as sn
from PIL import Image
upload = sn.PictureUpload(Image.new("RGB", (4, 4)))
upload
"""
SEEN = "print('seen', upload.chosen, upload.picture.size, upload.picture.getpixel((5, 5)))"
MISSING = "print('default', upload.chosen, upload.picture.size)"


def test_the_next_cell_sees_the_picture_chosen(open_notebook, run, tmp_path):
    Image.new("RGB", (30, 20), (200, 100, 50)).save(tmp_path / "mine.png")
    (tmp_path / "text.png").write_text("no picture")
    page = open_notebook(UPLOAD, MISSING, SEEN)
    run(page, 0)
    button = page.get_by_role("button", name="your picture")
    button.wait_for(timeout=90_000)
    run(page, 1)
    page.get_by_text("default False (4, 4)").wait_for(timeout=20_000)

    def choose(name):
        with page.expect_file_chooser() as dialogue:
            button.click()
        dialogue.value.set_files(tmp_path / name)
        page.get_by_role("button", name="your picture (1)").wait_for(timeout=20_000)
        # The button is ahead of the kernel.
        page.wait_for_timeout(500)
        run(page, 2)

    choose("mine.png")
    page.get_by_text("seen True (30, 20) (200, 100, 50)").wait_for(timeout=20_000)
    choose("text.png")
    page.get_by_text("the chosen file is not a picture that Pillow can read").first.wait_for(timeout=20_000)
    choose("mine.png")
    page.get_by_text("seen True (30, 20) (200, 100, 50)").wait_for(timeout=20_000)
