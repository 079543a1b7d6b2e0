//! Cuts data into chunks by its content, exactly where restic does.

mod polynomial;

pub use polynomial::{Polynomial, PolynomialError};
