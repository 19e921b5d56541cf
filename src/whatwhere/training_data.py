"""What a fit is given: images and responses of one recording, or of several that share a core."""

from dataclasses import dataclass

import torch

from whatwhere.stored_images import Images, joined
from whatwhere.stored_responses import Responses, joined_responses


@dataclass(frozen=True)
class TrainingData:
    """In the units of the fit, on the device: images (n, C, H, W), responses (n, n_neurons); both may be stored."""

    images: Images
    responses: Responses
    validation_images: Images
    validation_responses: Responses
    fingerprint: str = ""
    """Names the data, so that a run is resumed with the very same."""

    @property
    def parts(self) -> "tuple[TrainingData, ...]":
        """One for each recording: this alone."""
        return (self,)

    @property
    def device(self) -> torch.device:
        return self.images.device

    def all_images(self) -> "TrainingData":
        """Training and validation images as training images, and the validation images still to look at."""
        return TrainingData(
            joined(self.images, self.validation_images),
            joined_responses(self.responses, self.validation_responses),
            self.validation_images,
            self.validation_responses,
            self.fingerprint,
        )


@dataclass(frozen=True)
class SharedData:
    """Of several recordings, each with its own images and neurons, in the order of the members of a `SharedModel`."""

    parts: tuple[TrainingData, ...]
    fingerprint: str = ""

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    def all_images(self) -> "SharedData":
        """As `TrainingData.all_images`, of each recording."""
        return SharedData(tuple(part.all_images() for part in self.parts), self.fingerprint)
