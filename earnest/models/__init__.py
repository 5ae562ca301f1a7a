"""The language models: each is a `System` (system.py), from a `Batch` to what its streams are predicted from."""

from importlib import import_module
from pathlib import Path

from earnest.errors import UserError
from earnest.models.system import System
from earnest.records import read_object

# config.json's model_type -> its class, imported when it is needed, as each imports its part of transformers.
CLASSES = {
    "higgs_audio_v2": ("earnest.models.higgs", "Higgs"),
    "dia": ("earnest.models.dia", "Dia"),
    "earnest-mot": ("earnest.models.mot", "MoT"),
}


def load_model(path: str | Path) -> System:
    """The model in a directory that `earnest train` or transformers wrote, or in a checkpoint on the Hub.

    A directory of adapters names the model that they belong to. Raises UserError if there is no model, or of a type
    that earnest does not know.
    """
    adapters = Path(path) / "adapter_config.json"
    file = (
        Path(str(read_object(adapters).get("base_model_name_or_path")) if adapters.is_file() else path) / "config.json"
    )
    if not file.is_file():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

        try:
            file = Path(hf_hub_download(str(file.parent), "config.json"))
        except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
            raise UserError(
                f"no model at {file.parent}: {error}",
                "a directory with config.json, or a name on the Hub (owner/name)",
                "check the path, and the connection",
            ) from error
    model_type = read_object(file).get("model_type")
    if model_type == "higgs_audio":
        raise UserError(
            f"a Higgs in boson-ai's own format at {path}",
            "transformers' format, model_type higgs_audio_v2",
            "convert it once: convert_higgs_audio_v2_to_hf.py in transformers' source (src/transformers/models/"
            f"higgs_audio_v2) --input_path_or_repo {path} --output_dir CONVERTED; then name CONVERTED",
        )
    if model_type not in CLASSES:
        raise UserError(
            f"a model of type {model_type!r} at {path}",
            f"one of {', '.join(CLASSES)}",
            "give a checkpoint of one of these",
        )
    module, name = CLASSES[model_type]
    from earnest.loading import checkpoint_of

    with checkpoint_of(path):
        return getattr(import_module(module), name).from_pretrained(path)
