//! What to do about what the managers say in Docker's words, which name no next step.

/// Of what a manager says that finds no leader.
const LEADERLESS: &str = "does not have a leader";

/// The next step after the error of a node; `None` when the error names it, or nothing is wrong.
pub(super) fn advice(error: &str) -> Option<&'static str> {
    error.contains(LEADERLESS).then_some(
        "start the other managers. If they are lost for good: `docker swarm init --force-new-cluster` on \
         one that is left. If that was done on another one: `docker swarm leave --force` here, and join again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_without_a_leader_is_told_what_to_do_next() {
        let said = include_str!("../../../../../tests/golden/no-leader.txt");
        let said = said.lines().find(|line| line.contains("rpc error"));
        let next = advice(said.expect("what Docker says")).expect("a next step");
        for step in [
            "`docker swarm init --force-new-cluster` on one that is left",
            "`docker swarm leave --force` here, and join again",
        ] {
            assert!(next.contains(step), "{next}");
        }
        assert_eq!(advice(""), None);
        assert_eq!(advice("the disk is full"), None);
    }
}
