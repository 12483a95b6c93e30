//! How the queues are spread over the nodes of a cluster.
//!
//! AMQP doesn't tell. RabbitMQ's management API does: `GET /api/queues/{vhost}` lists each queue
//! with its leader and its members. Reading it is up to the caller.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::REQUESTS;

/// The leaders and the members of the queues of requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct QueueSpread {
    /// How many queues each node leads. A node that leads none is missing.
    pub leads: BTreeMap<String, usize>,
    /// The queues that have no leader now: they accept and deliver nothing.
    pub without_leader: Vec<String>,
    /// The queues with a member on one node only: they are lost with that node.
    pub with_one_member: Vec<String>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    online: Vec<String>,
}

impl QueueSpread {
    /// Reads the answer of `GET /api/queues/{vhost}`. Queues of other names are ignored.
    ///
    /// # Errors
    /// When the text is not such an answer.
    pub fn from_management_api(json: &str) -> Result<Self, serde_json::Error> {
        let listed: Vec<Listed> = serde_json::from_str(json)?;
        let mut spread = Self::default();
        for queue in listed
            .into_iter()
            .filter(|queue| queue.name.starts_with(REQUESTS))
        {
            if queue.members.len() < 2 {
                spread.with_one_member.push(queue.name.clone());
            }
            match queue.leader.filter(|leader| queue.online.contains(leader)) {
                Some(leader) => *spread.leads.entry(leader).or_default() += 1,
                None => spread.without_leader.push(queue.name),
            }
        }
        Ok(spread)
    }

    /// What an operator of a cluster with this many nodes should mend, in sentences. Empty for one
    /// node, unless a queue has no leader.
    pub fn problems(&self, nodes: usize) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(first) = self.without_leader.first() {
            problems.push(format!(
                "{} queues have no leader, among them {first}: a majority of their nodes is down",
                self.without_leader.len()
            ));
        }
        if nodes < 2 {
            return problems;
        }
        let total: usize = self.leads.values().sum();
        if let Some((node, leads)) = self.leads.iter().max_by_key(|(_, leads)| **leads)
            && *leads > 1
            && leads * 2 > total
            && leads * nodes > total + nodes
        {
            problems.push(format!(
                "the node {node} leads {leads} of {total} queues: run `rabbitmq-queues rebalance \
                 quorum`, and set the policy queue-leader-locator to balanced"
            ));
        }
        if let Some(first) = self.with_one_member.first() {
            problems.push(format!(
                "{} queues are on one node only, among them {first}: run `rabbitmq-queues grow \
                 <node> all` for each other node",
                self.with_one_member.len()
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the management API lists queues, with so many leaders on each node.
    fn listed(leaders: &[(&str, usize)], members: &[&str]) -> QueueSpread {
        let queues: Vec<_> = leaders
            .iter()
            .flat_map(|(leader, count)| std::iter::repeat_n(leader, *count))
            .enumerate()
            .map(|(n, leader)| {
                serde_json::json!({
                    "name": format!("{REQUESTS}.{n:03}"), "type": "quorum", "vhost": "/",
                    "leader": leader, "members": members, "online": members,
                })
            })
            .collect();
        QueueSpread::from_management_api(&serde_json::to_string(&queues).unwrap()).unwrap()
    }

    #[test]
    fn a_node_that_leads_more_than_half_is_named_with_the_remedy() {
        let spread = listed(
            &[("rabbit@a", 100), ("rabbit@b", 28)],
            &["rabbit@a", "rabbit@b"],
        );
        let problems = spread.problems(2);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("rabbit@a leads 100 of 128"));
        assert!(problems[0].contains("rebalance quorum"));
        let nodes = ["rabbit@a", "rabbit@b", "rabbit@c"];
        let even = listed(
            &[("rabbit@a", 43), ("rabbit@b", 44), ("rabbit@c", 41)],
            &nodes,
        );
        assert_eq!(even.problems(3), [""; 0]);
    }

    #[test]
    fn one_member_is_a_problem_of_a_cluster_only() {
        let spread = listed(&[("rabbit@a", 16)], &["rabbit@a"]);
        assert_eq!(spread.problems(1), [""; 0]);
        let problems = spread.problems(3);
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains("one node only"))
        );
    }

    #[test]
    fn a_queue_whose_leader_is_offline_has_none() {
        let text = r#"[{"name":"voice-otp.requests.001","leader":"rabbit@a",
            "members":["rabbit@a","rabbit@b","rabbit@c"],"online":["rabbit@c"]},
            {"name":"another.queue"}]"#;
        let spread = QueueSpread::from_management_api(text).unwrap();
        assert_eq!(spread.without_leader, ["voice-otp.requests.001"]);
        assert!(spread.problems(3)[0].contains("no leader"));
        assert!(QueueSpread::from_management_api("{}").is_err());
    }
}
