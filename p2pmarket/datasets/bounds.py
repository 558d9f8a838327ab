"""Every size and count of a downloaded archive is bounded here, with its unit in the name.

What peers send is bounded in `p2pmarket.limits`; these are for files that people fetch from the web and give us. The
real data sets (MNIST, CIFAR-10, TinyImageNet) stay well below each bound.
"""

from __future__ import annotations

MAX_ARCHIVE_BYTES = 512 * 1024**2
"""An archive on disk. TinyImageNet's has 248 MB."""
MAX_UNPACKED_BYTES = 1024**3
"""All that an archive unpacks to. TinyImageNet's JPEG files hardly compress, CIFAR-10 unpacks to 190 MB."""
MAX_MEMBER_BYTES = 128 * 1024**2
"""One file of an archive or folder, unpacked. MNIST's training images have 47 MB, a batch of CIFAR-10 31 MB."""
MAX_MEMBERS = 250_000
"""Files and folders of an archive or folder. TinyImageNet has 121,000."""
MAX_NAME_CHARACTERS = 512
"""A file's path inside an archive."""

MAX_PICKLE_OPCODES = 500_000
"""Steps of a pickle read as data. A batch of CIFAR-10 takes 40,000."""
MAX_PICKLE_LINE_BYTES = 64
"""A number or name that a pickle writes as a line of text."""

MAX_IMAGE_BYTES = 1024**2
"""One compressed image. TinyImageNet's have 2 KB."""
MAX_IMAGE_SIDE = 2048
"""Pixels. TinyImageNet's have 64."""
MAX_IMAGES = 125_000
"""Compressed images to decode. TinyImageNet has 110,000 with labels."""
MAX_CLASSES = 1000
"""TinyImageNet has 200."""
MAX_TEXT_BYTES = 16 * 1024**2
"""A list of names or labels."""
