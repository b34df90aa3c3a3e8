"""What a coded picture states of its own colours, for containers that say nothing of them."""

from contextlib import suppress
from dataclasses import dataclass

_EXTENDED = 255  # an aspect ratio that is given by two numbers
_PROFILE_BITS, _LEVEL_BITS = 88, 8
_SPS = 33  # the type of the unit that describes a sequence of HEVC
_MOST, _MOST_BYTES = 64, 4096  # sets of reference pictures, and all of a description


@dataclass(frozen=True)
class CodedColours:
    """Numbers of ITU-T H.273, 2 where nothing is said."""

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    is_full: bool = False  # whether values reach from 0 on; else from 16 on, of 8 bits


def hevc_colours(configuration: bytes) -> CodedColours:
    """Read the colours from the configuration of an HEVC picture, the content of a box hvcC.

    Source: ISO/IEC 14496-15, 8.3.3.1 (configuration); ITU-T H.265, 7.3.2.2 and E.2.1 (syntax).
    Raises: ValueError where it is damaged; it has no description of its sequence, or that ends too early.
    """
    at = 23
    for _ in range(int.from_bytes(configuration[22:at], "big")):
        kind, count = configuration[at : at + 1], int.from_bytes(configuration[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            if at >= len(configuration):  # a few bytes may state millions of parts
                raise ValueError("it ends too early")
            length = int.from_bytes(configuration[at : at + 2], "big")
            if kind and kind[0] & 63 == _SPS:
                unit = configuration[at + 4 : at + 2 + min(length, _MOST_BYTES)]
                return _sequence_colours(_Bits(unit.replace(b"\0\0\3", b"\0\0")))
            at += 2 + length
    raise ValueError("no description of a sequence")


def av1_colours(data: bytes, places: bytes) -> CodedColours:
    """Read the colours that the first of the coded pictures of an AVIF file states, whose places its box iloc has.

    Read are headers of stills, the short ones; those of animations are passed over.
    Source: ISO/IEC 14496-12, 8.11.3 (places); AV1 Bitstream & Decoding Process Specification, 5.3 to 5.5 (syntax).
    Raises: ValueError where the box is damaged.
    """
    bits = _Bits(places[:_MOST_BYTES])
    version, _, *sizes = (bits.read(count) for count in (8, 24, 4, 4, 4, 4))
    offset_bits, length_bits, base_bits, index_bits = (8 * size for size in sizes)
    index_bits, number_bits = index_bits if version else 0, 32 if version == 2 else 16
    for _ in range(bits.read(number_bits)):
        bits.read(number_bits + (16 if version else 0) + 16)
        base, extents = bits.read(base_bits), bits.read(16)
        bits.read(index_bits)
        at = base + bits.read(offset_bits)
        bits.read(length_bits + max(0, extents - 1) * (index_bits + offset_bits + length_bits))
        with suppress(ValueError):
            if (colours := _still_colours(data[at : at + _MOST])).primaries != CodedColours.primaries:
                return colours
    return CodedColours()


def _still_colours(picture: bytes) -> CodedColours:
    """Read the colours from the beginning of a still; names are those of the standard."""
    bits = _Bits(picture.removeprefix(b"\x12\0"))  # a temporal delimiter
    if bits.read(5) != 1:  # obu_forbidden_bit, obu_type
        raise ValueError("no header of a sequence")
    has_extension, has_size = bits.read(), bits.read()
    bits.read(9 if has_extension else 1)
    while has_size and bits.read(8) & 128:
        pass
    seq_profile = bits.read(3)
    if bits.read(2) != 3:  # still_picture, reduced_still_picture_header
        raise ValueError("no still")
    bits.read(5)
    bits.read(bits.read(4) + bits.read(4) + 2 + 6)  # width, height and switches
    if bits.read() and seq_profile == 2:  # high_bitdepth
        bits.read()
    bits.read(seq_profile != 1)  # mono_chrome
    if not bits.read():  # color_description_present_flag
        return CodedColours(is_full=bool(bits.read()))
    primaries, transfer, matrix = (bits.read(8) for _ in range(3))
    is_rgb = (primaries, transfer, matrix) == (1, 13, 0)
    return CodedColours(primaries, transfer, matrix, is_rgb or bool(bits.read()))


class _Bits:
    """Reads numbers from bits. Raises: ValueError past their end."""

    def __init__(self, data: bytes) -> None:
        self._all, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int = 1) -> int:
        """Read a number of so many bits."""
        self._left -= count
        if self._left < 0:
            raise ValueError("bits are missing")
        return self._all >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """Read a number whose length is coded by zeros before it (Exp-Golomb)."""
        zeros = 0
        while not self.read():
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def skip_golomb(self, count: int) -> None:
        """Pass over some numbers."""
        for _ in range(count):
            self.golomb()


def _sequence_colours(bits: _Bits) -> CodedColours:
    """Pass over all that stands before the colours; names are those of the standard."""
    bits.read(4)
    max_sub_layers_minus1 = bits.read(3)
    bits.read(1 + _PROFILE_BITS + _LEVEL_BITS)
    present = [bits.read(2) for _ in range(8 if max_sub_layers_minus1 else 0)][:max_sub_layers_minus1]
    bits.read(sum(_PROFILE_BITS * (flags >> 1) + _LEVEL_BITS * (flags & 1) for flags in present))
    bits.golomb()
    if bits.golomb() == 3:  # chroma_format_idc
        bits.read()
    bits.skip_golomb(2)
    if bits.read():  # conformance_window_flag
        bits.skip_golomb(4)
    bits.skip_golomb(2)
    poc_bits = bits.golomb() + 4
    bits.skip_golomb(3 * (max_sub_layers_minus1 + 1 if bits.read() else 1))
    bits.skip_golomb(6)
    if bits.read() and bits.read():  # scaling_list_enabled_flag, sps_scaling_list_data_present_flag
        _skip_scaling_lists(bits)
    bits.read(2)
    if bits.read():  # pcm_enabled_flag
        bits.read(8)
        bits.skip_golomb(2)
        bits.read()
    pictures = 0
    for number in range(min(bits.golomb(), _MOST)):
        pictures = _skip_reference_set(bits, number, pictures)
    if bits.read():  # long_term_ref_pics_present_flag
        bits.read(bits.golomb() * (poc_bits + 1))
    bits.read(2)
    if not bits.read():  # vui_parameters_present_flag
        return CodedColours()
    if bits.read() and bits.read(8) == _EXTENDED:
        bits.read(32)
    if bits.read():  # overscan_info_present_flag
        bits.read()
    if not bits.read():  # video_signal_type_present_flag
        return CodedColours()
    bits.read(3)
    is_full = bool(bits.read())
    if not bits.read():  # colour_description_present_flag
        return CodedColours(is_full=is_full)
    return CodedColours(bits.read(8), bits.read(8), bits.read(8), is_full)


def _skip_scaling_lists(bits: _Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if bits.read():  # scaling_list_pred_mode_flag
                bits.skip_golomb(min(64, 16 << 2 * size) + (size > 1))
            else:
                bits.golomb()


def _skip_reference_set(bits: _Bits, number: int, pictures: int) -> int:
    """Pass over a set of reference pictures that may be coded by the one before -> how many pictures it has."""
    if number and bits.read():  # inter_ref_pic_set_prediction_flag
        bits.read()
        bits.golomb()
        return sum(bits.read() or bits.read() for _ in range(pictures + 1))
    pictures = bits.golomb() + bits.golomb()
    for _ in range(pictures):
        bits.golomb()
        bits.read()
    return pictures
