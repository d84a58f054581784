"""The page itself, in Gradio: what stands where, and what happens at a click."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup
from starlette.middleware import Middleware

from utils.common.errors import UserError
from utils.inference.refinement import CRF
from utils.tools.demo.panels import (
    ALL_TAGS,
    OPACITY,
    as_html,
    download_html,
    example_style,
    panels,
    photo_panel,
    said_html,
)
from utils.tools.demo.photos import Photo, read_photo
from utils.tools.demo.stages import Explorer, Stages, chosen_tags

LARGEST = "100mb"  # of a file that is handed in
KEPT = 3600  # seconds that a photo stays in memory
ASIDE = "The toy CLIP knows drawn toy pictures alone: of a photograph its masks mean nothing."
# The browser is told to fetch nothing from elsewhere, whatever the library's page asks for.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "frame-ancestors 'none'"
)
# On a narrow screen, what was found lies below what was pressed.
_SHOW_STATUS = """() => {
  if (innerWidth < 700) document.getElementById("status").scrollIntoView();
}"""
_STYLE = Path(__file__).with_name("page.css")
_FONTS = ["system-ui", "sans-serif"]
_BLUE = "#2457c5"
_DEEP_BLUE = "#1b439a"


class Secluded:
    """Tells browsers to stay with this server."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as the page does, with the policy in the header."""

        async def sending(message: Any) -> None:
            """Send a message, its policy added where it begins an answer."""
            if message["type"] == "http.response.start":
                message["headers"].append((b"content-security-policy", _POLICY.encode()))
            await send(message)

        await self.app(scope, receive, sending)


@contextmanager
def served(
    explorer: Explorer,
    examples: Sequence[Photo],
    heading: str,
    place: tuple[str, int],
    folder: Path,
) -> Iterator[str]:
    """Serve the page for as long as the block lasts; yields its address.

    Args:
        explorer: makes stages of photos.
        examples: drawn pictures to start with.
        heading: what is at work, in words.
        place: host and port.
        folder: where the library writes what is handed in, GRADIO_TEMP_DIR when it was imported.

    Raises:
        UserError: the port is taken.
    """
    page = Page(Answers(explorer, folder), examples, heading).blocks
    style = [_STYLE.read_text(encoding="utf-8")]
    style += [example_style(number, photo) for number, photo in enumerate(examples)]
    try:
        _, address, _ = page.launch(
            server_name=place[0],
            server_port=place[1],
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,  # which the browser would keep
            footer_links=[],
            max_file_size=LARGEST,
            theme=theme(),
            css="\n".join(style),
            app_kwargs={"middleware": [Middleware(Secluded)]},
        )
    except OSError:
        raise UserError(f"--port {place[1]} has just been taken; give another") from None

    try:
        yield address
    finally:
        page.close(verbose=False)


def theme() -> gr.themes.Base:
    """Return colours that can be read on each other, and fonts that are there already."""
    plain = gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=["monospace"])
    return plain.set(
        block_info_text_color="#595959",
        block_info_text_color_dark="#b3b3b3",
        button_primary_background_fill=_BLUE,
        button_primary_background_fill_dark=_BLUE,
        button_primary_background_fill_hover=_DEEP_BLUE,
        button_primary_background_fill_hover_dark=_DEEP_BLUE,
    )


class Page:
    """The page, laid out and connected: what is asked on the left or above, what is found on the
    right or below.
    """

    def __init__(self, answers: "Answers", examples: Sequence[Photo], heading: str) -> None:
        """
        Args:
            answers: what its controls do.
            examples: drawn pictures to start with.
            heading: what is at work, in words.
        """
        self._examples = examples
        with gr.Blocks(title="CVF: masks from tags", analytics_enabled=False) as self.blocks:
            self._photo = gr.State(None, time_to_live=KEPT)
            self._stages = gr.State(None, time_to_live=KEPT)
            gr.HTML(Markup("<h1>Masks from tags</h1><p>{}</p>").format(heading))

            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    self._lay_out_questions(answers.classes)
                with gr.Column(scale=3, min_width=300):
                    self._lay_out_findings()

            self._connect(answers)

    def _lay_out_questions(self, classes: list[str]) -> None:
        self._upload = gr.File(label="Photo", height=140)
        self._buttons = []
        if self._examples:
            gr.HTML("<h2>or an example</h2>")
            with gr.Row(elem_id="examples"):  # page.css and `example_style` make pictures of them
                self._buttons = [
                    gr.Button(", ".join(one.tags), elem_id=f"example-{number}", min_width=90)
                    for number, one in enumerate(self._examples)
                ]

        self._typed = gr.Textbox(
            label="Tags, apart by commas", max_lines=1, placeholder="such as: cat, dog"
        )
        self._ticked = gr.CheckboxGroup(classes, label="or ticked", elem_id="ticks")
        self._go = gr.Button("Find", variant="primary")

    def _lay_out_findings(self) -> None:
        self._status = gr.HTML(said_html("Drop a photo, or take an example."), elem_id="status")
        with gr.Row():
            self._opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", info="of colours")
            self._threshold = gr.Slider(
                0, 1, 0, step=0.01, label="Threshold", info="what scores less is left out"
            )

        self._tag = gr.Radio([ALL_TAGS], value=ALL_TAGS, label="Maps show", visible=False)
        self._panels = gr.HTML()
        self._step = gr.Radio([], label="Mask to save", visible=False)
        self._kept = gr.HTML()

    def _connect(self, answers: "Answers") -> None:
        """Say what happens at each event, and which controls it reads and sets."""
        photo = self._photo
        stages = self._stages
        typed = self._typed
        ticked = self._ticked
        sliders = [self._opacity, self._threshold]
        found = [stages, self._tag, self._step, self._panels, self._kept, self._status]
        waiting: dict[str, Any] = {"show_progress_on": [self._panels], "api_visibility": "private"}
        quietly: dict[str, Any] = {
            "show_progress": "hidden",
            "trigger_mode": "always_last",
            "api_visibility": "private",
        }

        taken = [self._upload, typed, ticked, photo, *found]
        taking = self._upload.upload(answers.take, [self._upload, photo], taken, **waiting)
        asked = [photo, typed, ticked, *sliders]
        finding = [
            event(answers.find, asked, found, **waiting) for event in (self._go.click, typed.submit)
        ]
        for button, one in zip(self._buttons, self._examples):
            chosen = button.click(chooser(one), None, [photo, typed, ticked], **quietly)
            finding.append(chosen.then(answers.find, asked, found, **waiting))
        for event in (taking, *finding):
            event.then(None, js=_SHOW_STATUS)

        drawn_from = [stages, self._tag, *sliders]
        for event in (self._opacity.change, self._tag.input):
            event(answers.draw, drawn_from, self._panels, **quietly)
        saved_from = [photo, stages, self._step, self._threshold]
        for event in (self._threshold.change, self._step.input):
            event(answers.save, saved_from, self._kept, **quietly)
        self._threshold.change(answers.draw, drawn_from, self._panels, **quietly)


def chooser(one: Photo) -> Callable[[], tuple[Photo, str, list[str]]]:
    """Return what takes an example with its tags."""
    return lambda: (one, "", list(one.tags))


class Answers:
    """What the page's controls do. A mistake is one sentence on the page, which stays as it was."""

    def __init__(self, explorer: Explorer, folder: Path) -> None:
        """
        Args:
            explorer: makes stages of photos.
            folder: where files that are handed in lie.
        """
        self.classes = list(explorer.spec.classes)
        self._explorer = explorer
        self._folder = folder.resolve()
        self._names = explorer.spec.label_names

    def take(self, path: str | None, before: Photo | None) -> tuple[Any, ...]:
        """Read a photo into memory and remove its file: drop area, typed and ticked tags, photo,
        stages, tag, step, panels, mask, sentence. Tags of an example before it are taken away.
        """
        if path is None:
            return (gr.skip(),) * 10
        try:
            photo = read_photo(Path(path))
        except UserError as error:
            return None, *(gr.skip(),) * 8, said_html(str(error), bad=True)
        finally:
            self._remove(Path(path))

        said = f"{photo.name}, {photo.size}. Tick or type what it shows, then press Find."
        plain = as_html([photo_panel(photo.image)])
        tags = (gr.skip(), gr.skip())
        if before is not None and before.drawn:
            tags = ("", [])
        hidden = gr.update(visible=False)
        return None, *tags, photo, None, hidden, hidden, plain, "", said_html(said)

    def _remove(self, path: Path) -> None:
        """Remove a file that was handed in, and no other."""
        if self._folder in path.resolve().parents:
            path.unlink(missing_ok=True)

    def find(
        self,
        photo: Photo | None,
        typed: str,
        ticked: Sequence[str],
        opacity: float,
        threshold: float,
    ) -> tuple[Any, ...]:
        """Run the networks: stages, tag, step, panels, mask, sentence."""
        try:
            if photo is None:
                raise UserError("there is no photo; drop one, or take an example")
            tags = chosen_tags(typed, ticked, self._explorer.spec)
            stages = self._explorer.stages(photo.image, tags)
        except UserError as error:
            return *(gr.skip(),) * 5, said_html(str(error), bad=True)

        aside = ""
        if self._explorer.toy and not photo.drawn:
            aside = f" {ASIDE}"
        return (
            stages,
            gr.update(choices=[ALL_TAGS, *tags], value=ALL_TAGS, visible=len(tags) > 1),
            gr.update(choices=list(stages.channels), value=CRF, visible=True),
            self.draw(stages, ALL_TAGS, opacity, threshold),
            self.save(photo, stages, CRF, threshold),
            said_html(f"{photo.name}, {photo.size}, tags: {', '.join(tags)}.{aside}"),
        )

    def draw(self, stages: Stages | None, tag: str, opacity: float, threshold: float) -> Any:
        """Draw the panels, without asking a network."""
        if stages is None:
            return gr.skip()
        return as_html(panels(stages, self._names, tag, opacity, threshold))

    def save(self, photo: Photo, stages: Stages | None, step: str, threshold: float) -> Any:
        """Make the mask of a step."""
        if stages is None:
            return gr.skip()
        return download_html(photo, stages, step, self._names, threshold)
