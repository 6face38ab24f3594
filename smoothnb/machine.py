"""What a figure was measured on."""

import os
import platform

import torch


def describe(device: torch.device | str = "cpu") -> dict[str, str]:
    """The device and the versions that stand beside a figure.

    Args:
        device: What the figure was measured on.

    Returns:
        "device", "torch" and "python".
    """
    cores = f"{os.cpu_count()} CPU cores"
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else cores
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}
