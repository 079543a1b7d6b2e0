//! Zstandard as restic uses it, with contexts that live as long as their thread.
//!
//! # Source
//! restic, `doc/design.rst`, *Unpacked Data Format*; RFC 8878.

mod noise;

use std::{
    fmt,
    io::{BufRead, Read},
    str::FromStr,
};

use sha2::{Digest, Sha256};
use zstd::{
    bulk,
    zstd_safe::{CParameter, DParameter, Strategy, WriteBuf},
};

use self::noise::Noise;
use crate::{format::FormatError, id::BlobId};

/// log2 of the encoder's window: 512 KiB, restic's choice. A decoder needs that much memory,
/// and chunks are about 1 MiB, so a larger window gains little.
const WINDOW_LOG: u32 = 19;

/// The largest window a decoder accepts: 2^27, zstd's own default limit. It bounds the memory
/// that a hostile frame can claim.
const WINDOW_LOG_MAX: u32 = 27;

/// How hard the engine tries to make data smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum CompressionLevel {
    /// Store data as it is. (Trees and metadata files are compressed all the same, as restic
    /// does.)
    Off,
    /// Least effort.
    Fastest,
    /// A good ratio at a good speed.
    #[default]
    Auto,
    /// More effort.
    Better,
    /// Most effort that pays.
    Max,
}

impl CompressionLevel {
    /// All levels, from least to most effort.
    pub const ALL: [Self; 5] = [Self::Off, Self::Fastest, Self::Auto, Self::Better, Self::Max];

    /// The level as it is written in flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Fastest => "fastest",
            Self::Auto => "auto",
            Self::Better => "better",
            Self::Max => "max",
        }
    }

    /// zstd's number. restic's encoder has four levels of its own, which its documentation compares
    /// to zstd's 1, 3, 7 and 11. Its default compresses less than zstd's 3 does; 2 arrives at about
    /// restic's size, in less time than 3 takes (`docs/performance.md`).
    fn zstd_level(self) -> i32 {
        match self {
            Self::Off | Self::Fastest => 1,
            Self::Auto => 2,
            Self::Better => 7,
            Self::Max => 11,
        }
    }
}

impl fmt::Display for CompressionLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CompressionLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == text);
        found.ok_or_else(|| {
            format!("'{text}' is no compression level: write off, fastest, auto, better or max")
        })
    }
}

/// Compresses messages one after another with one context.
pub struct Compressor {
    context: bulk::Compressor<'static>,
    /// Whoever asks for a small repository has each blob tried.
    noise: Option<Noise>,
}

impl Compressor {
    /// A context for `level`.
    ///
    /// # Errors
    /// Fails when zstd cannot allocate its tables.
    pub fn new(level: CompressionLevel) -> Result<Self, FormatError> {
        let mut context = bulk::Compressor::new(level.zstd_level()).map_err(compression_failed)?;
        context.set_parameter(CParameter::WindowLog(WINDOW_LOG)).map_err(compression_failed)?;
        // Everything stored is authenticated and hashed; a checksum would say the same again.
        context.set_parameter(CParameter::ChecksumFlag(false)).map_err(compression_failed)?;
        let hasty = level <= CompressionLevel::Auto;
        Ok(Self { context, noise: hasty.then(Noise::new) })
    }

    /// A context for a few kilobytes of short records that differ little from their neighbours:
    /// pointers, keys. Matches of three bytes and the best choice among them leave little more than
    /// half of what the usual search leaves, in far more time (`bench/page_cuts.py`).
    ///
    /// # Errors
    /// As [`Compressor::new`].
    pub fn for_records(level: CompressionLevel) -> Result<Self, FormatError> {
        let (strategy, log) = match level {
            CompressionLevel::Off | CompressionLevel::Fastest => return Self::new(level),
            CompressionLevel::Auto => (Strategy::ZSTD_btopt, 10),
            CompressionLevel::Better | CompressionLevel::Max => (Strategy::ZSTD_btultra, 12),
        };
        let mut compressor = Self::new(level)?;
        for parameter in [
            CParameter::Strategy(strategy),
            CParameter::MinMatch(3),
            CParameter::TargetLength(16),
            CParameter::SearchLog(2),
            CParameter::HashLog(log),
            CParameter::ChainLog(log),
            CParameter::WindowLog(log + 2),
        ] {
            compressor.context.set_parameter(parameter).map_err(compression_failed)?;
        }
        Ok(compressor)
    }

    /// Replaces the content of `compressed` with the compressed `data`, and tells whether it is
    /// shorter; if not, the content is of no use.
    ///
    /// # Errors
    /// Fails when zstd does.
    pub fn compress(&mut self, data: &[u8], compressed: &mut Vec<u8>) -> Result<bool, FormatError> {
        let sample = self.noise.as_mut().and_then(|noise| noise.sample(data));
        if let Some(sample) = sample {
            let length = sample.len();
            self.compress_always(&data[sample], compressed)?;
            // Half a percent is not worth the time that it takes, here and in every restore.
            if compressed.len() > length - length / 200 {
                return Ok(false);
            }
        }
        self.compress_always(data, compressed)?;
        Ok(compressed.len() < data.len())
    }

    /// Replaces the content of `compressed` with the compressed `data`, be it shorter or not.
    ///
    /// # Errors
    /// Fails when zstd does.
    pub fn compress_always(
        &mut self,
        data: &[u8],
        compressed: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        compressed.clear();
        compressed.reserve_exact(zstd::zstd_safe::compress_bound(data.len()));
        self.context.compress_to_buffer(data, compressed).map(drop).map_err(compression_failed)
    }
}

/// Compresses a message that comes piece by piece; `finish` gives the whole.
pub(crate) type StreamCompressor = zstd::stream::write::Encoder<'static, Vec<u8>>;

/// A compressor of one message that comes piece by piece, and is put behind what `output` holds.
///
/// # Errors
/// As [`Compressor::new`].
pub(crate) fn stream_compressor(
    level: CompressionLevel,
    output: Vec<u8>,
) -> Result<StreamCompressor, FormatError> {
    let mut encoder =
        StreamCompressor::new(output, level.zstd_level()).map_err(compression_failed)?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).map_err(compression_failed)?;
    Ok(encoder)
}

/// Decompresses a message piece by piece.
///
/// # Errors
/// As [`Decompressor::new`].
pub(crate) fn stream_decompressor<R: BufRead>(
    compressed: R,
) -> Result<zstd::stream::read::Decoder<'static, R>, FormatError> {
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(compressed).map_err(compression_failed)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(compression_failed)?;
    Ok(decoder)
}

/// The hash of what a message holds, which must be `length` bytes. Takes little memory.
///
/// # Errors
/// Fails when the input is no zstd frame, or its content has another length.
pub(crate) fn digest(compressed: &[u8], length: u64) -> Result<BlobId, FormatError> {
    let mut content = stream_decompressor(compressed)?.take(length + 1);
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match content.read(&mut buffer).map_err(compression_failed)? {
            0 => break,
            read => {
                digest.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    if bytes != length {
        let text = format!("other than the {length} bytes come out that were promised");
        return Err(FormatError::Compression(text));
    }
    Ok(BlobId::from_bytes(digest.finalize().into()))
}

fn compression_failed(error: std::io::Error) -> FormatError {
    FormatError::Compression(error.to_string())
}

/// Decompresses messages one after another with one context.
pub struct Decompressor {
    context: bulk::Decompressor<'static>,
}

impl Decompressor {
    /// A context that accepts windows up to 128 MiB.
    ///
    /// # Errors
    /// Fails when zstd cannot allocate its tables.
    pub fn new() -> Result<Self, FormatError> {
        let mut context = bulk::Decompressor::new().map_err(compression_failed)?;
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(compression_failed)?;
        Ok(Self { context })
    }

    /// Replaces the content of `data` with `compressed` decompressed, which must be exactly
    /// `length` bytes.
    ///
    /// # Errors
    /// Fails when the input is no zstd frame, or its content has another length. Memory is
    /// taken for `length` bytes only: bound it first.
    pub fn decompress_exact(
        &mut self,
        compressed: &[u8],
        length: usize,
        data: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        data.clear();
        data.reserve_exact(length);
        self.decompress(compressed, length, data)
    }

    /// Fills `data` with `compressed` decompressed, which must be exactly as long.
    ///
    /// # Errors
    /// As [`Decompressor::decompress_exact`]; what `data` holds then is of no use.
    pub(crate) fn decompress_into(
        &mut self,
        compressed: &[u8],
        data: &mut [u8],
    ) -> Result<(), FormatError> {
        self.decompress(compressed, data.len(), data)
    }

    fn decompress<B: WriteBuf + ?Sized>(
        &mut self,
        compressed: &[u8],
        length: usize,
        data: &mut B,
    ) -> Result<(), FormatError> {
        let written =
            self.context.decompress_to_buffer(compressed, data).map_err(compression_failed)?;
        match written == length {
            true => Ok(()),
            false => {
                let text = format!("{written} bytes came out where {length} were promised");
                Err(FormatError::Compression(text))
            }
        }
    }
}

/// Decompresses a message of unknown length, up to `length_max` bytes.
///
/// # Errors
/// Fails when the input is no zstd frame or its content is longer than `length_max`.
pub fn decompress_bounded(compressed: &[u8], length_max: u64) -> Result<Vec<u8>, FormatError> {
    let decoder = stream_decompressor(compressed)?;
    let mut data = Vec::new();
    decoder.take(length_max + 1).read_to_end(&mut data).map_err(compression_failed)?;
    if data.len() as u64 > length_max {
        let text = format!("more than {length_max} bytes come out");
        return Err(FormatError::Compression(text));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_round_trips() {
        let data = b"recovery is measured, not declared. ".repeat(1000);
        for level in CompressionLevel::ALL {
            let mut compressed = Vec::new();
            assert!(Compressor::new(level).unwrap().compress(&data, &mut compressed).unwrap());
            assert!(compressed.len() < data.len() / 10);
            let mut back = Vec::new();
            let mut context = Decompressor::new().unwrap();
            context.decompress_exact(&compressed, data.len(), &mut back).unwrap();
            assert_eq!(back, data);
            assert_eq!(decompress_bounded(&compressed, data.len() as u64).unwrap(), data);
            assert_eq!(level.as_str().parse::<CompressionLevel>().unwrap(), level);
        }
    }

    #[test]
    fn promises_are_held_against_what_comes_out() {
        let mut compressed = Vec::new();
        let data = vec![0; 1 << 20];
        let mut compressor = Compressor::new(CompressionLevel::Auto).unwrap();
        assert!(compressor.compress(&data, &mut compressed).unwrap());
        let mut back = Vec::new();
        let mut context = Decompressor::new().unwrap();
        assert!(context.decompress_exact(&compressed, data.len() - 1, &mut back).is_err());
        assert!(context.decompress_exact(&compressed, data.len() + 1, &mut back).is_err());
        for (length, fits) in [(-1, false), (0, true), (1, false)] {
            let mut part = vec![1; data.len().strict_add_signed(length)];
            assert_eq!(context.decompress_into(&compressed, &mut part).is_ok(), fits);
            assert!(!fits || part == data);
        }
        assert!(decompress_bounded(&compressed, data.len() as u64 - 1).is_err());
        assert!(decompress_bounded(b"not zstd", 100).is_err());
    }
}
