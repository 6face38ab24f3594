"""Training of a smooth LoRA. Names are imported when they are first used: the losses need no trainer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_train": ["train"],
        "config": ["TrainConfig"],
        "losses": ["base_loss"],
        "regularizer": ["RunningConstant", "unit_directions", "variation", "variation_regularizer"],
        "trainer": ["Progress"],
    },
)
