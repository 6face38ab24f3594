from .dragging import (
    DRAG_DIFFUSION as DRAG_DIFFUSION,
    Dragged as Dragged,
    DragOptions as DragOptions,
    drag as drag,
    point_map as point_map,
)
from .editing import edit_text as edit_text, word_map as word_map
from .evaluation import (
    ISTD as ISTD,
    Comparison as Comparison,
    PhotoJudge as PhotoJudge,
    ReaderJudge as ReaderJudge,
    compare as compare,
    example_istd as example_istd,
    istd as istd,
    path_lengths as path_lengths,
    read_prompts as read_prompts,
    reconstruction as reconstruction,
)
from .figures import diagram as diagram, difference as difference, mark as mark, strip as strip
from .images import neighbour_distances as neighbour_distances
from .interpolation import coarse_to_fine as coarse_to_fine, interpolate as interpolate
from .inversion import (
    Inversion as Inversion,
    ddim_invert as ddim_invert,
    null_text_invert as null_text_invert,
    reconstruct as reconstruct,
)
from .latents import decode as decode, encode as encode, mix as mix, seeded_noise as seeded_noise, slerp as slerp
from .models import (
    Lora as Lora,
    UnknownWordsWarning as UnknownWordsWarning,
    export_lora as export_lora,
    import_lora as import_lora,
    load_pipeline as load_pipeline,
    lora_of as lora_of,
    set_smoothness as set_smoothness,
)
from .postcards.pictures import example_picture as example_picture
from .sampling import Step as Step, finish as finish, generate as generate, sample as sample
from .schedule import Schedule as Schedule
from .training import (
    RunningConstant as RunningConstant,
    TrainConfig as TrainConfig,
    base_loss as base_loss,
    train as train,
    unit_directions as unit_directions,
    variation as variation,
    variation_regularizer as variation_regularizer,
)
from .widgets import (
    BlendSlider as BlendSlider,
    DragCanvas as DragCanvas,
    DragEditor as DragEditor,
    EditSlider as EditSlider,
    LivePlot as LivePlot,
    MixingPad as MixingPad,
    MixingSlider as MixingSlider,
    PictureUpload as PictureUpload,
    WalkSlider as WalkSlider,
    pad_weights as pad_weights,
)

__version__: str
