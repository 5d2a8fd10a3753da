"""Where the arithmetic runs: the device that was asked for, and the folder that remembers compiled programs."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import jax

from bayesbragg.forward.stored_jit import forget_stored, open_store
from bayesbragg.model.errors import InputError

__all__ = ["choose_device", "forget_programs", "remember_programs"]

_MAPPINGS = Path("/proc/self/maps")
_MAPPINGS_LIMIT = Path("/proc/sys/vm/max_map_count")


def choose_device(name: str, number: int = 0) -> str:
    """Make a device the default.

    Args:
        name: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
        number: of this process on its node; processes take the node's devices by turns.

    Returns:
        what runs the fits, in words.

    Raises:
        InputError: a GPU was asked for and none can be used.
    """
    try:
        devices = jax.devices() if name == "auto" else jax.devices(name)
    except RuntimeError as error:
        reason = "" if name == "gpu" else f" ({' '.join(str(error).split())[:120]})"
        raise InputError(
            f"device={name}: no such device here{reason}; install bayesbragg[cuda] and check the driver, or set "
            "device=cpu"
        ) from None
    device = devices[number % len(devices)]
    jax.config.update("jax_default_device", device)  # type: ignore[no-untyped-call]
    return f"{device.device_kind} ({device.platform}), jax {jax.__version__}"


def remember_programs(folder: Path | None = None, purpose: str = "") -> Path:
    """Keep programs between runs; by default in the user's cache folder. Results do not depend on it.

    To be called once the device is chosen.

    Args:
        purpose: such as the name of the command; what it used first last time is loaded at once.
    """
    if folder is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "bayesbragg" / "programs"
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    for key, value in settings.items():
        jax.config.update(key, value)  # type: ignore[no-untyped-call]
    open_store(folder / "ready", purpose)
    return folder


def forget_programs(share: float = 0.4) -> bool:
    """Drop the compiled programs held in memory once they crowd the address space.

    On a CPU every compiled program takes a few dozen memory mappings, of which Linux grants a process 65,530; a process
    that meets more shapes than that ends in a segmentation fault. Dropped programs come back from the folder of
    :func:`remember_programs`. Results do not depend on it.

    Args:
        share: of the mappings granted, from 0 to 1, above which the programs are dropped.

    Returns:
        whether they were dropped; always False where the system does not tell its mappings.
    """
    try:
        held = _MAPPINGS.read_bytes().count(b"\n")
        granted = int(_MAPPINGS_LIMIT.read_text())
    except (OSError, ValueError):
        return False
    if held <= share * granted:
        return False
    jax.clear_caches()  # type: ignore[no-untyped-call]
    forget_stored()
    gc.collect()
    return True
