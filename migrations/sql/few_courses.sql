-- Of a ragged end of a room there are few readings mostly. For these the plan of the large statement is kept.
    IF cardinality(among) = 1 AND (
        SELECT count(*) <= 4 AND max(upper(span) - lower(span)) <= interval '2 hours' FROM unnest(spans) AS span
    ) THEN
        RETURN QUERY
        SELECT * FROM courses_of_few(building, among, spans, bounds, longest_hold, above_limit, below_limit);
        RETURN;
    END IF;
