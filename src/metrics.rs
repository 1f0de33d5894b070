//! Every metric family, declared once.
