    -- Of a ragged end of a room there are few readings mostly. For these the plan of the large statement is kept.
    IF cardinality(among) = 1 AND (
        SELECT count(*) <= 4 AND max(upper(span) - lower(span)) <= interval '2 hours' FROM unnest(spans) AS span
    ) THEN
        near := spans;
        RETURN QUERY
        @course_of_few@;
        RETURN;
    END IF;
    PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
