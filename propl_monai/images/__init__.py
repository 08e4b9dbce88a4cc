"""Any picture or cine to upright arrays and back; only the files of this room open image files.

All files give the same form: `uint8`, row 0 at the top, column 0 at the left, `(H, W)` when
the picture is grey and `(H, W, 3)` RGB when it has colour. The docstrings of `pillow`, `tiff`, `nifti`, `metaimage`, `dicom` and
`video` say what each way of storing a picture becomes, and so does a table in docs/formats.md. For all of them:

| in the file | becomes |
|---|---|
| equal channels | one |
| integers above 255 (DICOM states its own depth) | the smallest of 8, 10, 12, 14 and 16 bits that holds the maximum of all frames is stretched to 0-255 |
| floating point | 0..1 is stretched to 0-255; anything larger is treated as integers are |
| negative or non-finite values | refused |

In: paths. Out: `Picture`, `Cine`, masks, PNG files. Must not know: tasks, datalists, networks.

Tested elsewhere: `opening`, `picture`, `pillow`, `tiff` and `write` by `test_read`, `test_other_writers` and `test_fuzzed_files`;
`nifti` and `metaimage` by `test_volumes`; `dicom_header` by `test_dicom`.
"""  # noqa: E501

from __future__ import annotations

from propl_monai.images.picture import MAX_PIXELS, Cine, Picture, to_grey
from propl_monai.images.read import image_size, read_frames, read_image, read_mask, read_values, turn, turn_back
from propl_monai.images.write import write_mask, write_overlay, write_picture, write_png16

__all__ = [
    "MAX_PIXELS",
    "Cine",
    "Picture",
    "image_size",
    "read_frames",
    "read_image",
    "read_mask",
    "read_values",
    "to_grey",
    "turn",
    "turn_back",
    "write_mask",
    "write_overlay",
    "write_picture",
    "write_png16",
]
