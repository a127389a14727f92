-- The sum of temperatures as they are stored, without any rounding: a double from 1/32 to 64 is a whole multiple of 2^-57,
-- and so many of these fit into a bigint. What a temperature closer to zero has beyond that is summed up in multiples of
-- 2^-109. It is part of other statements, which say @exact_sum@.
sum((temperature * 144115188075855872)::bigint) * 6.938893903907228377647697925567626953125E-18
    + coalesce(
        sum(((
            temperature * 144115188075855872 - (temperature * 144115188075855872)::bigint
        ) * 4503599627370496)::bigint) FILTER (WHERE temperature < 0.03125 AND temperature > -0.03125)
            * 6.938893903907228377647697925567626953125E-18 * 2.220446049250313080847263336181640625E-16,
        0
    )
