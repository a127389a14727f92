    coalesce(sum(held) FILTER (WHERE temperature > above_limit), 0),
    exact_total(
        sum(high * held) FILTER (WHERE temperature > above_limit),
        sum(low * held) FILTER (WHERE temperature > above_limit),
        sum(tiny * held) FILTER (WHERE temperature > above_limit)
    ),
    coalesce(sum(held) FILTER (WHERE temperature < below_limit), 0),
    exact_total(
        sum(high * held) FILTER (WHERE temperature < below_limit),
        sum(low * held) FILTER (WHERE temperature < below_limit),
        sum(tiny * held) FILTER (WHERE temperature < below_limit)
    )
