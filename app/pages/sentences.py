"""What the service itself says to people, listed so that pages can say it in another language.

The API speaks English. A page that shows one of its sentences looks it up here by its pattern: ``%(name)s`` stands for
a value, ``%%`` for a per cent sign. A value may itself be one of these sentences. A test compares this list with what
the code raises.
"""

from __future__ import annotations


def marked(words: str) -> str:
    """The same words; `make translations` finds them by this name."""
    return words


TITLES = (
    marked("Something went wrong on our side"),
    marked("The request is malformed"),
    marked("There is nothing at this address"),
    marked("This address does not take that method"),
    marked("The Content-Type is not accepted"),
    marked("The host name is not one of ours"),
    marked("An option is not usable"),
    marked("No such model"),
    marked("No image was sent"),
    marked("Too many images in one request"),
    marked("The request is too large"),
    marked("The image is empty"),
    marked("Not an accepted image format"),
    marked("The image has too many pixels"),
    marked("The image cannot be decoded"),
    marked("Not available at the moment"),
    marked("The engine is away"),
    marked("The engine is busy"),
    marked("The model is not ready"),
    marked("The service cannot use its state"),
    marked("The GPU is out of memory"),
    marked("The change was refused"),
    marked("The model cannot be explained"),
    marked("The deadline passed"),
    marked("No room to keep it"),
    marked("No background jobs here"),
    marked("No such job"),
    marked("Too many jobs wait"),
    marked("The image was given up"),
    marked("The Idempotency-Key belongs to another request"),
    marked("The archive cannot be used"),
    marked("A token is needed"),
    marked("The token is not valid"),
    marked("The token does not allow this"),
    marked("Not allowed"),
    marked("Sent by another site"),
    marked("That cannot be done with tokens"),
)

OF_PICTURES = (
    marked("The image has 0 bytes."),
    marked("Send the bytes of the file, not its name."),
    marked("The image has %(size)s bytes; at most %(most)s are accepted."),
    marked("Save it smaller, or raise IMAGES_MAX_BYTES."),
    marked("The image is %(width)s×%(height)s pixels; at most %(most)s pixels are accepted."),
    marked("Scale it down, or raise IMAGES_MAX_PIXELS."),
    marked("The %(size)s bytes are not an image of an accepted format."),
    marked("Accepted: %(formats)s."),
    marked("The image's header cannot be read: %(reason)s."),
    marked("It is damaged. Accepted formats: %(formats)s."),
    marked("The %(format)s image of %(size)s bytes cannot be decoded: %(reason)s."),
    marked("It is cut off or damaged; open it in another program and save it again."),
    marked("No image was chosen."),
    marked("Go back and choose one or several images, or a sample."),
    marked("There is no sample %(name)s."),
    marked("The request holds no image."),
    marked(
        'Send multipart parts named "image", the raw bytes of one image with Content-Type: image/*, '
        'or JSON {"images": [base64, …]}.'
    ),
    marked("The request holds %(count)s images; at most %(most)s are accepted."),
    marked("Send them in several requests, or raise REQUEST_MAX_IMAGES."),
    marked("The request has %(size)s; at most %(most)s are accepted."),
    marked("%(size)s bytes"),
    marked("more bytes than accepted"),
    marked("Send fewer or smaller images in one request, or raise REQUEST_MAX_BYTES."),
    marked("The form has too many parts, or a field of more than %(most)s bytes."),
    marked("Send fewer images in one request, and each as a file: a part with a filename."),
)

OF_OPTIONS = (
    marked("%(name)s is %(value)s: %(reason)s."),
    marked("%(name)s is %(value)s."),
    marked("input should be greater than or equal to %(limit)s"),
    marked("input should be less than or equal to %(limit)s"),
    marked("input should be a valid number, unable to parse string as a number"),
    marked("input should be a valid integer, unable to parse string as an integer"),
    marked("input should be a valid integer, got a number with a fractional part"),
    marked("input should be a finite number"),
    marked("One of: %(values)s."),
    marked("%(name)s is not an option of %(task)s."),
    marked("Did you mean %(name)s?"),
    marked("Known options: %(names)s."),
    marked("Seconds, more than 0 and at most %(most)s."),
    marked("Name of the model; the first one of the task when left out."),
    marked("Version of the model; the one that answers now when left out."),
    marked("How many labels, best first."),
    marked("Detections with a lower score are left out."),
    marked("Boxes that overlap more than this are one object."),
    marked("At most so many detections, best first."),
    marked("Narrower boxes are left out; pixels of the upright image."),
    marked("Lower boxes are left out; pixels of the upright image."),
    marked("There is no model %(name)s here."),
    marked("There is no model here."),
    marked("There are: %(names)s."),
    marked("Also say where the model looked, as a map and a picture."),
    marked("Explain this label; the best one when left out."),
    marked("explain_label is %(value)s, which %(name)s does not know."),
    marked("It knows: %(names)s."),
    marked("The request holds %(count)s images; at most %(most)s can be explained at once."),
    marked("Send them in several requests, or leave explain out."),
    marked("%(name)s is computed by %(runtime)s, which cannot be explained."),
    marked("Set RUNTIME=openvino or RUNTIME=torch, or leave explain out."),
    marked("The network ends in %(found)s, not in a mean over places and one linear layer."),
    marked("Set RUNTIME=torch, where gradients explain it, or leave explain out."),
    marked("%(name)s decides by attention; Grad-CAM explains convolutions."),
    marked("Leave explain out."),
    marked("%(name)s finds objects; explanations are for models that name a picture."),
    marked("Ask POST /v1/classify, or leave explain out."),
)

OF_THE_ENGINE = (
    marked("The deadline passed before image %(number)s of %(count)s was decoded."),
    marked("Allow more time with X-Request-Timeout, or send fewer or smaller images at once."),
    marked("The deadline passed before the engine answered."),
    marked("Allow more time with X-Request-Timeout, or send fewer images at once."),
    marked("The deadline passed while the image waited for the engine."),
    marked("Allow more time with X-Request-Timeout, or send less at once."),
    marked("More requests are in work than can be answered in time."),
    marked("Send it again after the time in Retry-After."),
    marked("The engine did not say how it is within %(seconds)s s."),
    marked("It hangs or the machine is overloaded."),
    marked("The engine does not answer: %(reason)s."),
    marked("it has not started, or is being replaced"),
    marked("its process has ended and a new one has not started yet"),
    marked("its process ended while it worked"),
    marked("this process may not open its socket"),
    marked("Send it again after the time in Retry-After; /readyz tells when it is back."),
    marked("The engine is stopping."),
    marked("The engine does not hold %(name)s."),
    marked("GET /v1/models lists all."),
    marked("The engine holds %(name)s with another digest, %(digest)s."),
    marked("It was replaced in the store; promote it again."),
    marked("The model %(name)s failed to load."),
    marked("An operator must mend it; /readyz and the log say why."),
    marked("The model %(name)s is still loading."),
    marked("Send it again shortly."),
    marked("The model failed: %(reason)s."),
    marked("The model gave an answer that cannot be sent: %(reason)s."),
    marked("See the log."),
    marked("%(count)s images wait already; at most %(most)s may, not all of one model."),
)

OF_ADDRESSES = (
    marked("%(address)s: the request is malformed."),
    marked("See /v1 in docs/api.md for the shape of requests."),
    marked("%(address)s: there is nothing at this address."),
    marked("The addresses are listed in docs/api.md."),
    marked("%(address)s: this address does not take that method."),
    marked("The Allow header lists those it takes."),
    marked("%(address)s: the Content-Type is not accepted."),
    marked("Use multipart/form-data, image/* or JSON."),
    marked("This service does not answer to the host %(name)s."),
    marked("Call it by SERVER_NAME, or add the name to SERVER_ALIASES."),
    marked("Something went wrong on our side."),
    marked("Tell the operator the request id."),
)

OF_BUILDS = (
    marked("slower than %(name)s"),
    marked("agrees in %(found)s%%, at least %(least)s%% is needed"),
    marked("loses %(found)s points of mAP, at most %(most)s are allowed"),
    marked("failed: %(reason)s"),
    marked("left out: %(reason)s"),
    marked("it computes on the processor, and this build is for %(device)s"),
    marked("it lists boxes inside the network, which no other form takes"),
    marked("its pictures keep their shape (input.kind is fit), and a built file knows one shape"),
    marked("at least %(least)s sample pictures must show its agreement; there are %(count)s"),
    marked("%(library)s is not installed"),
    marked("there is no C++ compiler (%(name)s) here"),
    marked("%(least)s sample pictures are needed, to learn its ranges from one half and compare with the other"),
    marked("It ended while it was at: %(step)s."),
)

# The demonstration's own words.
OF_THE_STORE = (
    marked("Names a barrier, cone, helmet, sign or vest. A demonstration, trained on rendered scenes only."),
    marked("Finds barriers, cones, helmets, signs and vests. A demonstration, trained on rendered scenes only."),
    marked("Site morning"),
    marked("Site corner"),
    marked("Site wide"),
    marked("Cone"),
    marked("Helmet"),
    marked("Vest"),
)

# What the page of JSON-RPC says of its methods.
OF_METHODS = (
    marked("Says who answers."),
    marked("All models, as GET /v1/models lists them."),
    marked("Names what is in images."),
    marked("Finds objects in images."),
)

ALL = (*TITLES, *OF_PICTURES, *OF_OPTIONS, *OF_THE_ENGINE, *OF_ADDRESSES, *OF_BUILDS, *OF_THE_STORE, *OF_METHODS)
