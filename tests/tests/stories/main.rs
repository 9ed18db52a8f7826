//! Every story, one file per subject.

mod bed;
