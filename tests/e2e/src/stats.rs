//! Percentiles of a handful of measurements.

/// `p50 … p99 … max …` of milliseconds, as seconds. Nearest rank.
pub fn summary(measured_ms: &[i64]) -> String {
    if measured_ms.is_empty() {
        return "no measurements".to_owned();
    }
    let mut sorted = measured_ms.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted[rank - 1] as f64 / 1000.0
    };
    format!(
        "p50 {:.2} s   p99 {:.2} s   max {:.2} s   (n={})",
        at(50),
        at(99),
        at(100),
        sorted.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let hundred: Vec<i64> = (1..=100).rev().map(|n| n * 1000).collect();
        assert_eq!(
            summary(&hundred),
            "p50 50.00 s   p99 99.00 s   max 100.00 s   (n=100)"
        );
        assert_eq!(
            summary(&[250]),
            "p50 0.25 s   p99 0.25 s   max 0.25 s   (n=1)"
        );
        assert_eq!(summary(&[]), "no measurements");
    }
}
