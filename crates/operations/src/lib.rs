//! The verbs: where decisions meet hands.
