-- Tells benches/side-by-side what wrk has measured, as one line of JSON. Times are in microseconds.
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests":%d,"rate":%.1f,"p50":%d,"p99":%d,"errors":%d}\n',
        summary.requests, summary.requests * 1e6 / summary.duration, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
