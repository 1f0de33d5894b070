//! Who holds how many credits: holds and charges.
