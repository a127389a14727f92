-- Drops the oldest hour of readings that is older than the retention; its summaries stay. Returns whether it did.
CREATE OR REPLACE FUNCTION drop_expired() RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    boundary timestamptz := (SELECT date_bin('1 hour', now() - retention, '2000-01-03 00:00+00') FROM upkeep);
    oldest timestamptz;
BEGIN
    IF boundary IS NULL OR boundary <= (SELECT dropped_before FROM upkeep) THEN
        RETURN false;
    END IF;
    oldest := (
        SELECT min((
            SELECT min(timestamp) FROM temperatures
            WHERE temperatures.building_id = rooms.building_id AND temperatures.room_id = rooms.room_id
        )) FROM rooms
    );
    boundary := least(boundary, date_bin('1 hour', oldest, '2000-01-03 00:00+00') + interval '1 hour');
    -- Whoever begins a removal holds this row too. Of what is being removed nothing is dropped.
    PERFORM FROM upkeep FOR UPDATE;
    IF EXISTS (SELECT FROM removals WHERE finished IS NULL AND since < boundary) THEN
        RETURN false;
    END IF;
    -- One statement, since it sees one state: a late reading that comes meanwhile is not dropped.
    WITH may AS (
        SELECT NOT EXISTS (SELECT FROM unsummarized WHERE since < boundary)
            AND NOT EXISTS (SELECT FROM rooms WHERE courses_missing_before IS NOT NULL) AS be_dropped
    ), dropped AS (
        DELETE FROM temperatures USING rooms, may
        WHERE be_dropped AND temperatures.building_id = rooms.building_id AND temperatures.room_id = rooms.room_id
          AND temperatures.timestamp < boundary
    )
    UPDATE upkeep SET dropped_before = greatest(dropped_before, boundary) FROM may WHERE be_dropped;
    RETURN FOUND;
END
$$;

-- For how long what drop_expired() would drop next has been old enough; NULL if nothing was ever dropped.
CREATE OR REPLACE FUNCTION retention_overdue() RETURNS interval
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT now() - (dropped_before + retention) FROM upkeep WHERE isfinite(dropped_before)
$$;
