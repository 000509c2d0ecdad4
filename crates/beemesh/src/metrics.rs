//! `/metrics`: what one would ask at three in the morning, in Prometheus' text format.

use crate::driver::Driver;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The present figures.
pub(crate) fn text(driver: &Driver) -> String {
    let mut registry = Registry::with_prefix("beemesh");
    let mut gauge = |name: &str, help: &str, value: usize| {
        let g: Gauge = Gauge::default();
        g.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, g);
    };
    let cells = driver.all();
    gauge("cells", "Cells this node keeps", cells.len());
    gauge("cells_leading", "Cells this node leads", cells.iter().filter(|c| c.look(|c| c.is_leading())).count());
    gauge("objects", "Objects in the cells this node keeps", cells.iter().map(|c| c.look(|c| c.state().len())).sum());
    gauge(
        "requests_waiting",
        "Requests that wait for a cell here",
        cells.iter().map(|c| c.look(|c| c.waiting())).sum(),
    );
    gauge("watchers", "Watches open at this gateway", driver.watchers());
    gauge("disk_space_ample", "1 if the log's disk has room for all writes", usize::from(driver.has_space()));
    let mut out = String::new();
    // Writing into memory cannot fail.
    let _ = encode(&mut out, &registry);
    out
}
