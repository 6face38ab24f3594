from .dragging import (
    DRAG_DIFFUSION as DRAG_DIFFUSION,
)
from .dragging import (
    Dragged as Dragged,
)
from .dragging import (
    DragOptions as DragOptions,
)
from .dragging import (
    drag as drag,
)
from .dragging import (
    point_map as point_map,
)
from .editing import edit_text as edit_text
from .editing import word_map as word_map
from .evaluation import (
    ISTD as ISTD,
)
from .evaluation import (
    Comparison as Comparison,
)
from .evaluation import (
    PhotoJudge as PhotoJudge,
)
from .evaluation import (
    ReaderJudge as ReaderJudge,
)
from .evaluation import (
    compare as compare,
)
from .evaluation import (
    example_istd as example_istd,
)
from .evaluation import (
    istd as istd,
)
from .evaluation import (
    path_lengths as path_lengths,
)
from .evaluation import (
    read_prompts as read_prompts,
)
from .evaluation import (
    reconstruction as reconstruction,
)
from .figures import difference as difference
from .figures import mark as mark
from .figures import strip as strip
from .images import neighbour_distances as neighbour_distances
from .interpolation import coarse_to_fine as coarse_to_fine
from .interpolation import interpolate as interpolate
from .inversion import (
    Inversion as Inversion,
)
from .inversion import (
    ddim_invert as ddim_invert,
)
from .inversion import (
    null_text_invert as null_text_invert,
)
from .inversion import (
    reconstruct as reconstruct,
)
from .latents import decode as decode
from .latents import encode as encode
from .latents import mix as mix
from .latents import seeded_noise as seeded_noise
from .latents import slerp as slerp
from .models import (
    Lora as Lora,
)
from .models import (
    UnknownWordsWarning as UnknownWordsWarning,
)
from .models import (
    export_lora as export_lora,
)
from .models import (
    import_lora as import_lora,
)
from .models import (
    load_pipeline as load_pipeline,
)
from .models import (
    lora_of as lora_of,
)
from .models import (
    set_smoothness as set_smoothness,
)
from .postcards.pictures import example_picture as example_picture
from .sampling import Step as Step
from .sampling import finish as finish
from .sampling import generate as generate
from .sampling import sample as sample
from .schedule import Schedule as Schedule
from .training import (
    RunningConstant as RunningConstant,
)
from .training import (
    TrainConfig as TrainConfig,
)
from .training import (
    base_loss as base_loss,
)
from .training import (
    train as train,
)
from .training import (
    unit_directions as unit_directions,
)
from .training import (
    variation as variation,
)
from .training import (
    variation_regularizer as variation_regularizer,
)
from .widgets import (
    BlendSlider as BlendSlider,
)
from .widgets import (
    DragCanvas as DragCanvas,
)
from .widgets import (
    DragEditor as DragEditor,
)
from .widgets import (
    EditSlider as EditSlider,
)
from .widgets import (
    LivePlot as LivePlot,
)
from .widgets import (
    MixingPad as MixingPad,
)
from .widgets import (
    MixingSlider as MixingSlider,
)
from .widgets import (
    PictureUpload as PictureUpload,
)
from .widgets import (
    WalkSlider as WalkSlider,
)
from .widgets import (
    pad_weights as pad_weights,
)

__version__: str
