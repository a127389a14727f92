-- Drops the oldest chunk of readings that is older than the retention; its summaries stay. Returns whether it did.
CREATE OR REPLACE FUNCTION drop_expired() RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- An hour is dropped as a whole or not at all, whatever the chunks are like.
    boundary constant timestamptz := (
        SELECT min(range_end) FROM timescaledb_information.chunks, upkeep
        WHERE hypertable_schema = current_schema() AND hypertable_name = 'temperatures'
          AND range_end <= now() - retention AND range_end = date_bin('1 hour', range_end, '2000-01-03 00:00+00')
    );
    horizon timestamptz;
BEGIN
    @need_timescaledb@;
    IF boundary IS NULL THEN
        RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', '50ms', true);
    BEGIN
        -- Writers wait meanwhile, so that no late reading is dropped.
        LOCK TABLE temperatures IN SHARE ROW EXCLUSIVE MODE;
        horizon := (SELECT dropped_before FROM upkeep);
        IF EXISTS (SELECT FROM unsummarized WHERE since < boundary) OR (
            boundary <= horizon AND EXISTS (SELECT FROM temperatures WHERE timestamp < boundary)
        ) OR EXISTS (SELECT FROM rooms WHERE courses_missing_before IS NOT NULL) THEN
            RETURN false;
        END IF;
        -- To drop is not to delete: an earlier snapshot would miss the readings, and not know of it. Whoever asks holds
        -- this table before the snapshot is taken.
        LOCK TABLE upkeep IN ACCESS EXCLUSIVE MODE;
        -- Whoever begins a removal holds that too. Of what is being removed nothing is dropped.
        IF EXISTS (SELECT FROM removals WHERE finished IS NULL AND since < boundary) THEN
            RETURN false;
        END IF;
        PERFORM drop_chunks('temperatures', older_than => boundary);
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
    UPDATE upkeep SET dropped_before = greatest(dropped_before, boundary);
    RETURN true;
END
$$;

-- For how long what drop_expired() would drop next has been old enough; NULL if there is nothing.
CREATE OR REPLACE FUNCTION retention_overdue() RETURNS interval
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT now() - min(range_end + retention) FROM timescaledb_information.chunks, upkeep
    WHERE hypertable_schema = current_schema() AND hypertable_name = 'temperatures'
      AND range_end <= now() - retention AND range_end = date_bin('1 hour', range_end, '2000-01-03 00:00+00')
$$;
