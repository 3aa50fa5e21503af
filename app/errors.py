"""Every failure a caller or operator can meet, by name. Says what happened, what was expected, what to do. A leaf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from app.texts import worded


class CaskError(Exception):
    """Something went wrong that we know by name.

    ``code`` is the stable word in the problem document and in docs/errors.md; it is never reused for another meaning.
    """

    code = "internal_error"
    status = 500
    title = "Something went wrong on our side"
    # What the answer's headers say besides.
    headers: Mapping[str, str] = MappingProxyType({})
    # Which of several things in one request it is about, where the engine says so; from 0.
    number = 0

    def __init__(
        self, message: str, *, hint: str = "", retry_after_seconds: float | None = None, **values: object
    ) -> None:
        """``values`` are put into message and hint where those say ``%(name)s``."""
        self.message = worded(message, values)
        self.hint = worded(hint, values)
        super().__init__(self.message)
        self.retry_after_seconds = retry_after_seconds

    def to_problem(self, request_id: str, said: Callable[[str], str] = str) -> dict[str, str | int]:
        """The problem document (RFC 9457) that callers read; ``said`` says a text in their language, else English."""
        return {
            "type": f"urn:cask:problem:{self.code}",
            "title": said(self.title),
            "status": self.status,
            "detail": said(self.message),
            "code": self.code,
            "hint": said(self.hint),
            "request_id": request_id,
        }


class SettingsError(CaskError):
    """A setting is unknown or wrong; the start is refused with exit status 2."""

    code = "settings_invalid"


class PluginError(CaskError):
    """A plugin cannot be read, imported or mounted: its message names file, line and reason."""

    code = "plugin_broken"


class ManifestError(CaskError):
    """A model's manifest cannot be read or says something impossible."""

    code = "manifest_invalid"


class ModelLoadError(CaskError):
    """A model's weights are missing, altered, or do not fit its architecture."""

    code = "model_load_failed"


class GoldenCheckError(CaskError):
    """A loaded model does not give the answers that were stored with it."""

    code = "golden_check_failed"


class RolesInvalidError(CaskError):
    """The file that says which versions serve cannot be read or says something impossible."""

    code = "roles_invalid"


class ChangeRefusedError(CaskError):
    """An operator asked for a change of versions that cannot be made; what served goes on."""

    code = "change_refused"
    status = 409
    title = "The change was refused"


class DeadlineExceededError(CaskError):
    """The request's deadline passed before an answer was there."""

    code = "deadline_exceeded"
    status = 504
    title = "The deadline passed"


class RequestError(CaskError):
    """The caller sent something that cannot be answered. Base of every 4xx."""

    code = "bad_request"
    status = 400
    title = "The request is malformed"


class CallerGoneError(RequestError):
    """The caller went away while the request was being read."""

    code = "caller_gone"
    title = "The caller went away"


class ContentEncodingError(RequestError):
    """The body is compressed (Content-Encoding)."""

    code = "content_encoding_unsupported"
    status = 415
    title = "The body is compressed"
    # RFC 9110, section 15.5.16: what would have been acceptable.
    headers = MappingProxyType({"Accept-Encoding": "identity"})


class OptionError(RequestError):
    """An option is unknown, of the wrong type or out of range."""

    code = "option_invalid"
    status = 422
    title = "An option is not usable"


class ModelNotFoundError(RequestError):
    """No such model, or no such version of it."""

    code = "model_not_found"
    status = 404
    title = "No such model"


class TokenMissingError(RequestError):
    """This address answers only those who show a token."""

    code = "token_missing"
    status = 401
    title = "A token is needed"


class TokenInvalidError(RequestError):
    """The token is none of ours, has expired or was revoked."""

    code = "token_invalid"
    status = 401
    title = "The token is not valid"


class ScopeMissingError(RequestError):
    """The token is valid, but not for this."""

    code = "scope_missing"
    status = 403
    title = "The token does not allow this"


class ForeignFormError(RequestError):
    """Another site made the caller's browser send this."""

    code = "origin_foreign"
    status = 403
    title = "Sent by another site"


class OutsideError(RequestError):
    """Operators' addresses answer only callers from networks that the settings name."""

    code = "forbidden"
    status = 403
    title = "Not allowed"


class ImageMissingError(RequestError):
    """The request holds no image."""

    code = "image_missing"
    title = "No image was sent"


class TooManyImagesError(RequestError):
    """The request holds more images than one request may."""

    code = "too_many_images"
    status = 413
    title = "Too many images in one request"


class ExplanationUnsupportedError(RequestError):
    """This model's answers cannot be explained, or not by the runtime that computes it."""

    code = "explanation_unsupported"
    status = 422
    title = "The model cannot be explained"


class RequestTooLargeError(RequestError):
    """The body is larger than accepted."""

    code = "request_too_large"
    status = 413
    title = "The request is too large"


class ImageEmptyError(RequestError):
    """An image of zero bytes."""

    code = "image_empty"
    status = 422
    title = "The image is empty"


class ImageUnsupportedError(RequestError):
    """Not one of the image formats that we accept."""

    code = "image_unsupported"
    status = 415
    title = "Not an accepted image format"


class ImageTooLargeError(RequestError):
    """The image has more pixels than accepted; it is refused by its header, before it is decoded."""

    code = "image_too_large"
    status = 413
    title = "The image has too many pixels"


class ImageTooComplexError(RequestError):
    """To decode the image would take out of proportion to its size, or longer than is allowed."""

    code = "image_too_complex"
    status = 422
    title = "The image takes too much work"


class ImageUndecodableError(RequestError):
    """The bytes claim to be an image but cannot be decoded."""

    code = "image_undecodable"
    status = 422
    title = "The image cannot be decoded"


class InputRefusedError(RequestError):
    """A model with code says why it does not answer this item."""

    code = "input_refused"
    status = 422
    title = "The model refuses this input"


class TooManyRequestsError(RequestError):
    """The caller has sent as many requests as are allowed in this time."""

    code = "rate_limited"
    status = 429
    title = "Too many requests"
    # Of the limit: requests, what remains, the window's end (seconds since 1970) and its seconds.
    rate: tuple[int, int, float, int] | None = None


class TokenError(CaskError):
    """An operator asked for something that cannot be done with tokens."""

    code = "token_refused"
    title = "That cannot be done with tokens"


class BackupError(CaskError):
    """A backup cannot be made, read or put back."""

    code = "backup_refused"
    title = "That cannot be done with backups"


class UnavailableError(CaskError):
    """Not now; try again. Always carries Retry-After."""

    code = "unavailable"
    status = 503
    title = "Not available at the moment"

    def __init__(self, message: str, *, retry_after_seconds: float | None = 1.0, **more: Any) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds, **more)


class EngineAwayError(UnavailableError):
    """The inference process does not answer: starting, crashed, or being replaced.

    ``was_working``: it ended while it had this request, which may be why.
    """

    code = "engine_away"
    title = "The engine is away"
    was_working = False


class EngineBusyError(UnavailableError):
    """More is asked for than can be answered in time. ``reason``: ``slow``: of the engine; ``slots``: of the places."""

    code = "engine_busy"
    title = "More is asked than can be answered"

    def __init__(self, message: str, *, reason: str = "slow", **more: Any) -> None:
        super().__init__(message, **more)
        self.reason = reason

    def to_problem(self, request_id: str, said: Callable[[str], str] = str) -> dict[str, str | int]:
        """With the reason, so that programs can tell the two apart."""
        return {**super().to_problem(request_id, said), "reason": self.reason}


class MemoryShortError(UnavailableError):
    """The memory that all requests share has no room for this one at the moment."""

    code = "memory_short"
    title = "No memory free for it"


class DecodersBusyError(UnavailableError):
    """Too many images that take long to decode wait already."""

    code = "decoders_busy"
    title = "The decoders are busy"


class ModelNotReadyError(UnavailableError):
    """The model exists but has not finished loading, or failed to."""

    code = "model_not_ready"
    title = "The model is not ready"


class ModelCrashedError(UnavailableError):
    """The process of a model with code ended, or did not answer in its time, while it computed this request."""

    code = "model_crashed"
    title = "The model's process ended"


class StateUnusableError(UnavailableError):
    """A file of the service that this request needs cannot be read or written."""

    code = "state_unusable"
    title = "The service cannot use its state"


class GpuOutOfMemoryError(UnavailableError):
    """The GPU has no memory for this one image; others are answered."""

    code = "gpu_out_of_memory"
    title = "The GPU is out of memory"


class StorageFullError(CaskError):
    """There is no room left for what the caller wants to leave here."""

    code = "storage_full"
    status = 507
    title = "No room to keep it"


class TemporaryFullError(CaskError):
    """There is no room for the temporary file that a large part of a form is put into while it is read."""

    code = "temporary_full"
    status = 507
    title = "No room for temporary files"


class JobsOffError(RequestError):
    """Background jobs are switched off here."""

    code = "jobs_off"
    status = 404
    title = "No background jobs here"


class JobNotFoundError(RequestError):
    """No such job, or not one of this caller's."""

    code = "job_not_found"
    status = 404
    title = "No such job"


class JobsFullError(UnavailableError):
    """So many jobs wait already that no further one is taken."""

    code = "jobs_full"
    title = "Too many jobs wait"


class JobImageAbandonedError(CaskError):
    """One image of a job was begun again and again, and each time something ended before its answer was there."""

    code = "job_image_abandoned"
    title = "The image was given up"


class IdempotencyError(RequestError):
    """An Idempotency-Key came again with another body."""

    code = "idempotency_key_reused"
    status = 422
    title = "The Idempotency-Key belongs to another request"


class ArchiveError(RequestError):
    """An archive cannot be read, or holds what we do not take out of it."""

    code = "archive_unusable"
    status = 422
    title = "The archive cannot be used"
