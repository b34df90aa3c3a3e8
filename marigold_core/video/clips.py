"""Video files: upright frames with their times, and MP4 files with the same times and the sound of the source."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import ArgumentError, FFmpegError
from PIL import Image

from marigold_core.errors import VideoError

MAX_PIXELS = 8192 * 4320  # of a frame
QUALITY = "18"  # constant rate factor of x264: hardly told from the source
# Containers that hold a whole video themselves, by FFmpeg's names. Its others, such as playlists (HLS, DASH, concat),
# SDP and numbered pictures, open further files or web addresses that they name.
WHOLE = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,wtv,rm,nut,dv,gif,apng,ivf,"
    "h264,hevc,av1,obu,m4v,mjpeg,yuv4mpegpipe,swf"
)
LIMITS = {"max_pixels": str(MAX_PIXELS)}  # of decoders: a small file may state frames of gigabytes
OPENING = {"format_whitelist": WHOLE, "protocol_whitelist": "file", **LIMITS}
COPIED_SOUND = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}  # what players expect in MP4


@dataclass(frozen=True)
class Frame:
    """A frame, upright, with square pixels."""

    pixels: np.ndarray  # [H, W, 3] uint8
    pts: int  # when it is shown, in units of the clip's ``time_base``; always after that of the frame before

    def seconds(self, time_base: Fraction) -> float:
        """When it is shown, from the beginning of the file on."""
        return float(self.pts * time_base)


class Clip:
    """A video file to read. Its first moving picture counts; what else it holds is left aside."""

    def __init__(self, path: str | Path) -> None:
        """Open it and read what it states of itself.

        Raises:
            VideoError: the file cannot be opened, or holds no moving picture.
        """
        self.path = Path(path)
        with self._opened() as container:
            stream = _moving_picture(container, self.path)
            self.time_base = stream.time_base or Fraction(1, 1000)
            self.rate = stream.average_rate or Fraction(25)
            seconds = float(container.duration or 0) / av.time_base
            self.frame_count = stream.frames or round(seconds * self.rate)  # as stated or guessed; 0 where unknown
            self.frame_pixels: int = stream.codec_context.width * stream.codec_context.height
            self.has_sound = bool(container.streams.audio)
        self.note: str | None = None  # what a reader of all frames found to be wrong

    @contextmanager
    def _opened(self) -> Generator[Any]:
        try:
            with av.open(f"file:{self.path}", options=OPENING) as container:
                yield container
        except FileNotFoundError:
            raise VideoError(f"There is no file {self.path}.") from None
        except ArgumentError:
            raise VideoError(
                f"{self.path.name} is no file that holds a whole video, such as MP4, MOV, WebM, MKV or AVI;"
                " playlists are not followed."
            ) from None
        except (FFmpegError, OSError) as error:
            raise VideoError(f"{self.path.name} cannot be read as a video ({_reason(error)}).") from None

    def frames(self) -> Generator[Frame]:
        """Decode all frames, one at a time; where the file is damaged or cut off they end early and ``note`` says so.

        Raises:
            VideoError: not even one frame can be decoded, or frames are too large.
        """
        for packet in self._packets(with_sound=False):
            if isinstance(packet, Frame):
                yield packet

    def frames_and_sound(self) -> "Generator[Frame | Any]":
        """Decode all frames as ``frames``, with the packets of the first sound track between them."""
        return self._packets(with_sound=True)

    def _packets(self, *, with_sound: bool) -> "Generator[Frame | Any]":
        count, last, size = 0, None, None
        with self._opened() as container:
            stream = _moving_picture(container, self.path)
            stream.thread_type = "AUTO"
            stream.codec_context.options = LIMITS
            sound = list(container.streams.audio[:1]) if with_sound else []
            try:
                for packet in container.demux(stream, *sound):
                    if packet.stream is not stream:
                        yield packet
                        continue
                    for decoded in packet.decode():
                        pixels = _upright(decoded, stream.sample_aspect_ratio)
                        if size is None:
                            size = pixels.shape[:2]
                        elif pixels.shape[:2] != size:  # some streams change it on the way
                            pixels = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
                        step = round(1 / (self.rate * self.time_base)) or 1
                        pts = decoded.pts if decoded.pts is not None else (0 if last is None else last + step)
                        last = pts if last is None else max(pts, last + 1)
                        count += 1
                        yield Frame(pixels, last)
            except FFmpegError as error:
                self.note = f"The file is damaged or cut off after frame {count} ({_reason(error)})."
        if not count:
            most = f"{MAX_PIXELS / 1e6:.0f} megapixels"
            raise VideoError(
                f"{self.path.name} holds no frame of up to {most} that can be decoded. {self.note or ''}".rstrip()
            )
        if self.note is None and stream.frames and count < stream.frames:
            self.note = f"The file states {stream.frames} frames, but only {count} could be decoded."


class ClipWriter:
    """An MP4 file that is written frame by frame: H.264, even sides."""

    def __init__(self, path: Path, time_base: Fraction, rate: Fraction, sound_of: Clip | None = None) -> None:
        """Begin the file: ``time_base`` is the unit of times, ``rate`` about how many frames a second has."""
        self.note: str | None = None
        self._time_base = time_base
        self._container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._video: Any = self._container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        self._sound: Any = None
        self._begun, self._early = False, list[Any]()  # packets of sound before the first frame
        if sound_of and sound_of.has_sound:
            self._add_sound(sound_of.path)

    def _add_sound(self, source: Path) -> None:
        with av.open(f"file:{source}", options=OPENING) as given:
            track: Any = given.streams.audio[0]
            name = track.codec_context.codec.canonical_name if track.codec_context else "unknown"
            if name in COPIED_SOUND:
                self._sound = self._container.add_stream_from_template(track)
            else:
                self.note = f"The sound is {name}, which MP4 players do not expect; it was left out."

    def write(self, picture: np.ndarray, pts: int) -> None:
        """Add a frame [H, W, 3] uint8."""
        height, width = picture.shape[:2]
        if not self._begun:
            self._video.width, self._video.height = width + width % 2, height + height % 2
            self._video.pix_fmt = "yuv420p"
            self._video.codec_context.time_base = self._time_base
            self._begun = True
            for packet in self._early:
                self.write_sound(packet)
        # H.264 has a colour for every two by two pixels, so sides must be even: the last row or column is repeated.
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), "rgb24")
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._video.encode(frame))

    def write_sound(self, packet: Any) -> None:
        """Add a packet of the source's sound."""
        if not self._begun:  # the first packet of any kind fixes the size of the picture
            self._early.append(packet)
        elif self._sound is not None and packet.dts is not None:
            packet.stream = self._sound
            self._container.mux(packet)

    def close(self) -> None:
        """End the file."""
        if self._begun:
            self._container.mux(self._video.encode(None))
        self._container.close()


def _moving_picture(container: Any, path: Path) -> Any:
    """Find the first video stream that is no cover picture. Raises: VideoError."""
    for stream in container.streams.video:
        if not _is_cover(stream) and stream.codec_context is not None:
            _check_size(stream.codec_context)
            return stream
    if container.streams.video and not any(_is_cover(stream) for stream in container.streams.video):
        raise VideoError(f"{path.name} cannot be read as a video (its format is not known or its head is damaged).")
    kinds = sorted({str(stream.type) for stream in container.streams})
    raise VideoError(f"{path.name} holds no moving picture, only {' and '.join(kinds) or 'nothing'}.")


def _check_size(stated: Any) -> None:
    if stated.width * stated.height > MAX_PIXELS:
        raise VideoError(f"Frames of {stated.width} x {stated.height} pixels are too large.")


def _is_cover(stream: Any) -> bool:
    """Tell whether a video stream is the picture of an album."""
    return "attached_pic" in str(stream.disposition).lower()


def _upright(decoded: Any, aspect: Fraction | None) -> np.ndarray:
    """A decoded frame -> [H, W, 3] uint8, turned as its metadata says, with square pixels. Raises: VideoError."""
    _check_size(decoded)
    pixels = decoded.to_ndarray(format="rgb24")
    if aspect and aspect != 1 and Fraction(1, 4) < aspect < 4:
        height, width = pixels.shape[:2]
        size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    turns = round((decoded.rotation or 0) / 90) % 4  # counterclockwise
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
