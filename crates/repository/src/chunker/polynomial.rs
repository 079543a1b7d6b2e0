//! The polynomial that decides where a repository's chunks are cut.
//!
//! A fingerprint is the remainder of the data, read as a polynomial over GF(2), divided by one
//! that every repository chooses at random and writes into its config. Who does not know it cannot
//! tell from the sizes of the chunks which files they came from, at least not cheaply. It must be
//! irreducible, or fingerprints collide more often than they should.
//!
//! A polynomial is the bits of an integer: bit *i* is the coefficient of xⁱ. Adding is XOR.
//!
//! # Source
//!
//! Michael O. Rabin, *Fingerprinting by Random Polynomials* (1981). The test for irreducibility is
//! Ben-Or's, as in Gao and Panario, *Tests and Constructions of Irreducible Polynomials over
//! Finite Fields* (1997).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An irreducible polynomial of degree 53 over GF(2).
///
/// Its text form is restic's: hexadecimal, lower case, without prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Polynomial(u64);

impl Polynomial {
    /// The degree of every repository's polynomial: the largest prime that leaves a byte free above
    /// a fingerprint in 64 bits, so that the next byte can be shifted in before reducing.
    pub const DEGREE: u32 = 53;

    /// Chooses a polynomial at random, as every new repository must.
    ///
    /// One odd number in about 27 will do, so this ends soon.
    ///
    /// # Errors
    ///
    /// When the operating system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        loop {
            let candidate = (getrandom::u64()? & COEFFICIENTS) | LEADING_COEFFICIENT | 1;
            if let Ok(polynomial) = Self::new(candidate) {
                return Ok(polynomial);
            }
        }
    }

    /// Takes the polynomial with these coefficients.
    ///
    /// # Errors
    ///
    /// When it is not of degree 53, or not irreducible.
    pub fn new(coefficients: u64) -> Result<Self, PolynomialError> {
        if degree(coefficients) != Some(Self::DEGREE) {
            return Err(PolynomialError::Degree { degree: degree(coefficients) });
        }
        if !is_irreducible(coefficients) {
            return Err(PolynomialError::Reducible);
        }
        Ok(Self(coefficients))
    }

    /// Reads the text form; capital digits will do.
    ///
    /// # Errors
    ///
    /// When the text is not a hexadecimal number of at most 64 bits, or its polynomial is refused
    /// by [`Polynomial::new`]. restic refuses such a config as well, except that it accepts other
    /// degrees and then fails to chunk if they are larger.
    pub fn parse(text: &str) -> Result<Self, PolynomialError> {
        // `from_str_radix` by itself would let a sign pass.
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PolynomialError::NotHexadecimal);
        }
        let coefficients =
            u64::from_str_radix(text, 16).map_err(|_| PolynomialError::NotHexadecimal)?;
        Self::new(coefficients)
    }

    /// Returns the coefficients; bit 53 is the highest that is set.
    pub fn coefficients(self) -> u64 {
        self.0
    }

    /// Returns the remainder of `value` divided by this polynomial.
    pub(super) fn reduce(self, value: u64) -> u64 {
        remainder(value, self.0)
    }

    /// Multiplies modulo this polynomial.
    pub(super) fn multiply(self, left: u64, right: u64) -> u64 {
        multiply_modulo(left, right, self.0)
    }
}

impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Polynomial({self})")
    }
}

impl FromStr for Polynomial {
    type Err = PolynomialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Polynomial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Polynomial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Polynomial;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an irreducible polynomial of degree 53 in hexadecimal")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Polynomial, E> {
                Polynomial::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

/// Why a number or a text is not a polynomial to chunk by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolynomialError {
    /// The text is not a hexadecimal number of at most 64 bits.
    #[error("parse chunker polynomial: not a hexadecimal number of 64 bits")]
    NotHexadecimal,
    /// The polynomial has another degree than 53.
    #[error("accept chunker polynomial: its degree is not 53")]
    Degree {
        /// The degree it has; `None` for the zero polynomial.
        degree: Option<u32>,
    },
    /// The polynomial is a product of smaller ones.
    #[error("accept chunker polynomial: it is not irreducible")]
    Reducible,
}

const LEADING_COEFFICIENT: u64 = 1 << Polynomial::DEGREE;
const COEFFICIENTS: u64 = (LEADING_COEFFICIENT << 1) - 1;

/// The polynomial x.
const X: u64 = 0b10;

fn degree(value: u64) -> Option<u32> {
    value.checked_ilog2()
}

/// Divides by `modulus`, which must not be zero, and returns the remainder.
fn remainder(mut value: u64, modulus: u64) -> u64 {
    let modulus_degree = degree(modulus).expect("division by the zero polynomial");
    while let Some(excess) = degree(value).and_then(|degree| degree.checked_sub(modulus_degree)) {
        value ^= modulus << excess;
    }
    value
}

/// Multiplies modulo `modulus`, whose degree must be at most 63.
fn multiply_modulo(left: u64, right: u64, modulus: u64) -> u64 {
    let mut shifted = remainder(left, modulus);
    let mut right = remainder(right, modulus);
    let mut product = 0;
    while right != 0 {
        if right & 1 == 1 {
            product ^= shifted;
        }
        shifted = remainder(shifted << 1, modulus);
        right >>= 1;
    }
    product
}

fn greatest_common_divisor(mut left: u64, mut right: u64) -> u64 {
    while right != 0 {
        (left, right) = (right, remainder(left, right));
    }
    left
}

/// Decides whether `value` has no factor but itself and 1.
///
/// The product of all irreducible polynomials whose degree divides *i* is x^(2^i) − x. If none of
/// these, up to half the degree, shares a factor with `value`, then `value` has no small factor,
/// and so none at all.
fn is_irreducible(value: u64) -> bool {
    let Some(degree) = degree(value).filter(|degree| *degree > 0) else {
        return false;
    };
    let mut power = X;
    (1..=degree / 2).all(|_| {
        power = multiply_modulo(power, power, value);
        greatest_common_divisor(value, power ^ X) == 1
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The polynomial of the Go chunker's own tests.
    const EXAMPLE: u64 = 0x3d_a335_8b4d_c173;

    #[test]
    fn divides() {
        assert_eq!(remainder(10, 50), 10);
        assert_eq!(remainder(0, 1), 0);
        assert_eq!(remainder(0b1_0110_1001, 0b1010), 1);
        assert_eq!(remainder(0b1100, 0b100), 0);
        assert_eq!(remainder(0b11_0000_1111, 0b1_0011), 0);
        assert_eq!(remainder(1 << 63, 1 << 63), 0);
    }

    #[test]
    fn multiplies() {
        assert_eq!(multiply_modulo(0b1101, 0b11, EXAMPLE), 0b1_0111);
        assert_eq!(multiply_modulo(0b1_0011, 0b11_0101, EXAMPLE), 0b11_0000_1111);
        assert_eq!(multiply_modulo(0x1230, 0x230, 0x55), 0x22);
        let product =
            multiply_modulo(0x0eae_8c07_dbbb_3026, 0xd5d6_db9d_e047_71de, 0xdd2b_da3b_77c9);
        assert_eq!(product, 0x425a_e859_5b7a);
    }

    #[test]
    fn finds_common_divisors() {
        assert_eq!(greatest_common_divisor(10, 50), 2);
        assert_eq!(greatest_common_divisor(0, 7), 7);
        assert_eq!(greatest_common_divisor(0b1010, 0b11), 0b11);
        assert_eq!(greatest_common_divisor(EXAMPLE, EXAMPLE), EXAMPLE);
        assert_eq!(greatest_common_divisor(EXAMPLE, 0x230d_2259_defd), 1);
        assert_eq!(greatest_common_divisor(0x230d_2259_defd, 0x51b4_92b3_eff2), 0b1_0011);
    }

    #[test]
    fn tells_irreducible_polynomials_of_small_degree() {
        let irreducible = (0..=0b1_1111).filter(|value| is_irreducible(*value)).collect::<Vec<_>>();
        let expected = [0b10, 0b11, 0b111, 0b1011, 0b1101, 0b1_0011, 0b1_1001, 0b1_1111].to_vec();
        assert_eq!(irreducible, expected);
    }

    #[test]
    fn counts_irreducible_polynomials_by_degree() {
        // The necklace-counting formula gives 1/n · Σ μ(d) 2^(n/d) over the divisors d of n.
        for (degree, expected) in [(5, 6), (6, 9), (7, 18), (8, 30), (11, 186), (12, 335)] {
            let of_degree = (1_u64 << degree)..(2 << degree);
            assert_eq!(of_degree.filter(|value| is_irreducible(*value)).count(), expected);
        }
    }

    #[test]
    fn agrees_with_the_go_chunker_on_its_examples() {
        for irreducible in [EXAMPLE, 0x24_8273_4cac_ca49] {
            assert_eq!(Polynomial::new(irreducible).map(Polynomial::coefficients), Ok(irreducible));
        }
        for reducible in [
            0x38_f1e5_65e2_88df,
            0x30_a829_5b9d_5c91,
            0x25_5f43_50b9_62cb,
            0x26_7f77_6110_a235,
            0x3f_2ac7_488b_d429,
            0x31_43d0_464b_3299,
        ] {
            assert_eq!(Polynomial::new(reducible), Err(PolynomialError::Reducible));
        }
    }

    #[test]
    fn refuses_other_degrees() {
        for (coefficients, degree) in
            [(0, None), (1, Some(0)), (0b111, Some(2)), ((1 << 54) | 1, Some(54))]
        {
            assert_eq!(Polynomial::new(coefficients), Err(PolynomialError::Degree { degree }));
        }
    }

    #[test]
    fn has_restic_s_text_form() {
        let polynomial = Polynomial::new(EXAMPLE).unwrap();
        assert_eq!(polynomial.to_string(), "3da3358b4dc173");
        assert_eq!("3da3358b4dc173".parse(), Ok(polynomial));
        assert_eq!(Polynomial::parse("003DA3358B4DC173"), Ok(polynomial));
        for text in
            ["", "0x3da3358b4dc173", "+3da3358b4dc173", "3da3358b4dc17g", "10000000000000000"]
        {
            assert_eq!(Polynomial::parse(text), Err(PolynomialError::NotHexadecimal), "{text}");
        }

        let json = r#""3da3358b4dc173""#;
        assert_eq!(serde_json::to_string(&polynomial).unwrap(), json);
        assert_eq!(serde_json::from_str::<Polynomial>(json).unwrap(), polynomial);
        assert!(serde_json::from_str::<Polynomial>(r#""3da3358b4dc171""#).is_err());
        assert!(serde_json::from_str::<Polynomial>("17").is_err());
    }

    #[test]
    fn random_polynomials_are_valid_and_differ() {
        let (first, second) = (Polynomial::random().unwrap(), Polynomial::random().unwrap());
        assert_ne!(first, second);
        assert_eq!(Polynomial::new(first.coefficients()), Ok(first));
    }

    proptest! {
        #[test]
        fn products_are_reducible(left in 2_u64..1 << 26, right in 1_u64 << 26..1 << 28) {
            // No reduction happens below degree 54, so this is the plain product.
            let product = multiply_modulo(left, right, 1 << 63);
            prop_assert!(!is_irreducible(product));
            prop_assert_eq!(remainder(product, left), 0);
            prop_assert_eq!(remainder(product, right), 0);
        }

        #[test]
        fn multiplication_is_a_ring(left: u64, middle: u64, right: u64) {
            let times = |left, right| multiply_modulo(left, right, EXAMPLE);
            prop_assert_eq!(times(left, right), times(right, left));
            prop_assert_eq!(times(times(left, middle), right), times(left, times(middle, right)));
            prop_assert_eq!(times(left, middle ^ right), times(left, middle) ^ times(left, right));
            prop_assert_eq!(times(left, 1), remainder(left, EXAMPLE));
        }
    }
}
